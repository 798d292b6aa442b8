from __future__ import annotations

from pathlib import Path

import pytest

from serving.config import ConfigError
from serving.config_sources import load_config


def loaded(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return load_config(path, environment={}).config


def test_yamls_bare_on_and_off_are_the_modes(tmp_path: Path) -> None:
    assert loaded(tmp_path, "control: {mode: off}").control.mode == "off"
    assert loaded(tmp_path, "control: {mode: on, slo: ['itl_p95<=50ms']}").control.mode == "on"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode: on", "needs a bound to hold"),
        ("{mode: on, slo: [soon]}", "is not understood"),
        ("{mode: on, slo: ['e2e_p99<=3s']}", "holds ttft_p95 and itl_p95"),
        ("{mode: on, slo: ['itl_p95<=1s'], objective: carbon}", "needs both"),
        (
            "{mode: on, slo: ['itl_p95<=1s'], relaxed_slo: ['itl_p95<=900ms'], objective: carbon, "
            "threshold_grams_per_kwh: 300}",
            "relaxed promise itl_p95<=0.9s is tighter than 1 s",
        ),
        ("{mode: on, slo: ['itl_p95<=1s'], lowest_cap: 9, highest_cap: 3}", "lowest_cap 9 is above highest_cap 3"),
        ("{mode: fast}", "control.mode"),
        ("{window_seconds: 0}", "control.window_seconds"),
    ],
)
def test_what_cannot_be_held_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    body = f"control:\n  {text}" if text.startswith("mode") else f"control: {text}"
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, body)


def test_a_cap_above_the_engines_batch_is_brought_down_to_it(tmp_path: Path) -> None:
    control = loaded(tmp_path, "control: {mode: on, slo: ['itl_p95<=1s'], highest_cap: 500}").control
    assert control.law(most_cap=32).highest_cap == 32
