"""`wattgate tune` over a whole gateway with the simulated engine: searched, resumed, recommended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.config import load_config
from serving.tuning.engine_model import EngineModel

pytestmark = pytest.mark.ray

CONFIG = """
engine: {kind: simulated, simulated: {step_seconds: 0.01, step_seconds_per_sequence: 0.002}}
cache: {tier: off}
admission: {max_concurrency: 2}
"""


def tune(folder: Path, trials: int) -> dict[str, Any]:
    config = folder / "gateway.yaml"
    config.write_text(CONFIG)
    command = [sys.executable, "-c", "from serving.cli import main; main()", "tune", "--config", str(config)]
    command += ["--objective", "tokens", "--slo", "itl_p95<=60ms", "--caps", "1-16", "--clients", "16"]
    command += ["--requests", "48", "--prompt-tokens", "20", "--output-tokens", "16", "--repeats", "2"]
    command += [
        "--trials",
        str(trials),
        "--study",
        str(folder / "study.journal"),
        "--out",
        str(folder / "out"),
        "--json",
    ]
    environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_larger_cap_is_found_and_serves_and_a_second_run_goes_on_from_the_first(tmp_path: Path) -> None:
    first = tune(tmp_path, trials=3)
    assert first["trials"][0]["setting"]["cap"] == 2
    assert first["recommended"]["cap"] > 2
    assert first["gain"]["low"] > 1.2
    recommended = load_config(tmp_path / "out" / "recommended.yaml", environment={}).config
    assert recommended.admission.max_concurrency == first["recommended"]["cap"]
    kept = [Path(name) for name in first["files"] if "engine-models" in name]
    assert EngineModel.load(kept[0]).method == "fitted"
    again = tune(tmp_path, trials=4)
    assert again["trials"][:3] == first["trials"]
    assert len(again["trials"]) == 4
