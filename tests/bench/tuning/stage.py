"""The real engine as all these benchmarks use it: the bundled model and the defaults unless told, no response cache."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from metering.architecture import load_architecture
from serving.bundled_model import BUNDLED_MODEL, bundled_model_folder
from serving.config import GatewayConfig
from serving.config_sources import load_config
from serving.placement.metering_setup import node_hardware
from serving.tuning.bench import GatewayBench
from serving.tuning.lengths import Lengths
from serving.tuning.outcome import Outcome
from serving.tuning.slo import Slo
from serving.tuning.workload import Workload

CLIENTS = 32
REQUESTS = 48
PROMPT, OUTPUT = Lengths("uniform", 8, 24), Lengths("uniform", 24, 40)
"""Words of a prompt; the chat template adds some 30 tokens."""


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def configuration(flags: dict[str, Any] | None = None, path: Path | None = None) -> GatewayConfig:
    return load_config(path, {"cache.tier": "off", "server.port": 0, **(flags or {})}, environment={}).config


def bench_of(config: GatewayConfig, *, most_cap: int = 32, clients: int = CLIENTS) -> GatewayBench:
    hardware = node_hardware(config).detected
    model = config.engine.model
    architecture = load_architecture(bundled_model_folder() if model == BUNDLED_MODEL else model)
    return GatewayBench(
        config, Slo(), hardware, most_cap, tell, architecture=architecture, clients=clients, warm_up_requests=8
    )


def machine(config: GatewayConfig | None = None) -> dict[str, Any]:
    return {
        "processor": node_hardware(config or configuration()).detected.name,  # type: ignore[union-attr]
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def really_asked(workload: Workload, outcomes: Sequence[Outcome]) -> Workload:
    """The workload with the lengths that the engine counted: template and tokeniser add to what was asked for."""
    ordered = sorted(outcomes, key=lambda one: one.intended_seconds)
    computed = [max(1, one.prompt_tokens - one.cached_prompt_tokens) for one in ordered]
    whole = [max(1, one.prompt_tokens) for one in ordered]
    prefix = [total - own for total, own in zip(whole, computed, strict=True)]
    zeros = workload.prompt_tokens * 0
    return Workload(workload.arrival_seconds, zeros + whole, workload.output_tokens, zeros + prefix, workload.repeat_of)
