"""The alerts over scripted series: promtool plays hours of incidents and of calm."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.system_packages import program

PROMETHEUS = Path(__file__).parents[3] / "deploy" / "prometheus"
RULE_FILES = [PROMETHEUS / "recording.yaml", PROMETHEUS / "alerts.yaml"]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_rules_and_configuration() -> None:
    assert "SUCCESS" in promtool("check", "rules", *RULE_FILES)
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yaml")


@pytest.mark.parametrize("name", ["calm", "incidents"])
def test_alerts_fire_in_incidents_and_are_silent_in_a_calm_hour(name: str) -> None:
    promtool("test", "rules", PROMETHEUS / "tests" / f"{name}.yaml")


def test_a_wrong_rule_would_be_seen(tmp_path: Path) -> None:
    for file in RULE_FILES:
        (tmp_path / file.name).write_text(file.read_text().replace("> 14.4", "> 1000").replace("> 6", "> 1000"))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "incidents.yaml").write_text((PROMETHEUS / "tests" / "incidents.yaml").read_text())
    with pytest.raises(AssertionError, match="WattgateErrorBudgetBurnFast"):
        promtool("test", "rules", tmp_path / "tests" / "incidents.yaml")
