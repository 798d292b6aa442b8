"""`wattgate tune` over whole gateways: its own, simulated and real, and one that runs already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.config_sources import load_config
from serving.tuning.study import open_study
from tests.integration.serving.gateway_process import GatewayProcess

pytestmark = [pytest.mark.ray, pytest.mark.long]

CONFIG = """
engine: {{kind: simulated, served_model_name: {name}, simulated: {{step_seconds: 0.004}}}}
cache: {{tier: off}}
admission: {{max_concurrency: 2, max_queue: 77}}
"""


def command(folder: Path, *arguments: str, seconds: float = 280) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from serving.cli import main; main()", "tune", "--json", *arguments]
    environment = {**os.environ, "XDG_DATA_HOME": str(folder / "data")}
    return subprocess.run(program, capture_output=True, text=True, env=environment, timeout=seconds, check=False)


def tune(folder: Path, trials: int, name: str = "first") -> subprocess.CompletedProcess[str]:
    config = folder / "gateway.yaml"
    config.write_text(CONFIG.format(name=name))
    arguments = ["--config", str(config)]
    arguments += ["--objective", "tokens", "--slo", "e2e_p95<=60s", "--caps", "1-8", "--clients", "8"]
    arguments += ["--requests", "16", "--prompt-tokens", "20", "--output-tokens", "8", "--repeats", "1"]
    arguments += ["--trials", str(trials), "--study", str(folder / "study.journal"), "--out", str(folder / "out")]
    return command(folder, *arguments)


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


def test_the_cap_of_a_gateway_that_runs_already_is_turned_and_given_back(tmp_path: Path) -> None:
    config = tmp_path / "running.yaml"
    config.write_text(CONFIG.format(name="first") + "server: {port: 0}\n")
    gateway = GatewayProcess("--config", str(config)).wait_ready()
    try:
        load = ["--objective", "tokens", "--caps", "1-8", "--clients", "8", "--requests", "16"]
        load += ["--prompt-tokens", "20", "--output-tokens", "8", "--repeats", "0", "--trials", "3"]
        found = figures(command(tmp_path, "--url", gateway.url, *load, "--out", str(tmp_path / "out")))
        caps = httpx.get(f"{gateway.url}/v1/control/caps", timeout=30).json()["data"]
        moves = httpx.get(f"{gateway.url}/v1/control", timeout=30).json()["data"]
    finally:
        gateway.stop()
    assert found["identity"]["engine"] == f"running: first at {gateway.url}"
    tried = [trial["setting"]["cap"] for trial in found["trials"]]
    assert tried[0] == 2
    assert all(trial["figures"]["completed"] == 16 for trial in found["trials"])
    assert [(cap["replica_cap"], cap["held"]) for cap in caps] == [(2, None)]
    held = [line["to"] for line in moves if line["why"].startswith("held by wattgate tune")]
    assert held == tried
    assert moves[-1]["why"] == "no longer held"


@pytest.mark.engine
def test_knobs_that_restart_the_real_engine_are_tried(tmp_path: Path) -> None:
    config = tmp_path / "real.yaml"
    config.write_text(
        "cache: {tier: off}\nadmission: {max_concurrency: 2}\nengine: {vllm: {max_context_tokens: 512}}\n"
    )
    knobs = ["--caps", "2-2", "--max-batched-tokens", "256", "--try-prefix-caching", "--trials", "2", "--repeats", "0"]
    load = ["--objective", "joules", "--clients", "2", "--requests", "6", "--prompt-tokens", "320"]
    load += ["--output-tokens", "8", "--prefix-tokens", "300", "--prefix-ratio", "1"]
    done = command(tmp_path, "--config", str(config), *knobs, *load, "--out", str(tmp_path / "out"), seconds=900)
    found = figures(done)
    first, second = (trial["setting"] for trial in found["trials"])
    assert (first["max_batched_tokens"], first["prefix_caching"]) == (None, True)
    assert (second["max_batched_tokens"], second["prefix_caching"]) in [(256, True), (256, False), (None, False)]
    assert done.stderr.count("starting a gateway") == 2
    for trial in found["trials"]:
        assert trial["figures"]["completed"] == 6
        assert trial["figures"]["joules_per_output_token"] > 0
        # prompts share their beginning: kept keys and values say whether the knob has reached the engine
        assert (trial["figures"]["prefix_cached_ratio"] > 0) == trial["setting"]["prefix_caching"]
    recommended = load_config(tmp_path / "out" / "recommended.yaml", environment={}).config.engine.vllm
    assert recommended.max_batched_tokens == found["recommended"]["max_batched_tokens"]
    assert recommended.enable_prefix_caching == found["recommended"]["prefix_caching"]
