"""`wattgate tune` over a whole gateway with the simulated engine: searched, recommended, gone on from where it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.config_sources import load_config
from serving.tuning.search import open_study

pytestmark = [pytest.mark.ray, pytest.mark.long]

CONFIG = """
engine: {{kind: simulated, served_model_name: {name}, simulated: {{step_seconds: 0.004}}}}
cache: {{tier: off}}
admission: {{max_concurrency: 2, max_queue: 77}}
"""


def tune(folder: Path, trials: int, name: str = "first") -> subprocess.CompletedProcess[str]:
    config = folder / "gateway.yaml"
    config.write_text(CONFIG.format(name=name))
    command = [sys.executable, "-c", "from serving.cli import main; main()", "tune", "--config", str(config), "--json"]
    command += ["--objective", "tokens", "--slo", "e2e_p95<=60s", "--caps", "1-8", "--clients", "8"]
    command += ["--requests", "16", "--prompt-tokens", "20", "--output-tokens", "8", "--repeats", "1"]
    command += ["--trials", str(trials), "--study", str(folder / "study.journal"), "--out", str(folder / "out")]
    environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)


def figures(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def trials_in(study: Path, identity: dict[str, str]) -> int:
    return len(open_study(study, identity, seed=0).trials)


def test_a_study_recommends_what_serve_takes_goes_on_where_it_was_and_is_of_one_model(tmp_path: Path) -> None:
    first = figures(tune(tmp_path, trials=2))
    assert first["method"] == "measured"
    assert first["trials"][0]["setting"]["cap"] == 2
    assert all(trial["figures"]["completed"] == 16 for trial in first["trials"])
    tried = {trial["setting"]["cap"] for trial in first["trials"]}
    assert first["recommended"]["cap"] in tried
    recommended = load_config(tmp_path / "out" / "recommended.yaml", environment={}).config
    assert recommended.admission.max_concurrency == first["recommended"]["cap"]
    # the rest of the configuration is what it was, but for the cap
    assert (recommended.engine.kind, recommended.engine.served_model_name) == ("simulated", "first")
    assert recommended.admission.max_queue == 77
    assert recommended.cache.tier == "off"
    assert all(Path(name).stat().st_size > 0 for name in first["files"])

    again = figures(tune(tmp_path, trials=3))
    assert again["trials"][:2] == first["trials"]
    assert len(again["trials"]) == 3

    kept = trials_in(tmp_path / "study.journal", again["identity"])
    other = tune(tmp_path, trials=4, name="second")
    assert other.returncode == 2
    assert "study.journal is of another engine" in " ".join(other.stderr.split())
    assert "--study" in other.stderr
    assert trials_in(tmp_path / "study.journal", again["identity"]) == kept
