"""``python -m tests.bench.metering [mixed] [overhead]``: results as JSON and a table under ``results``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from serving.config_sources import load_config
from serving.engines.settings import EngineSettings, VllmSettings
from serving.engines.vllm import VllmEngine, engine_cores
from serving.placement.calibration import ensure_calibration
from tests.bench.metering import mixed, overhead
from tests.bench.metering.stack import Stack, stack
from tests.bench.serving.report import machine

RESULTS = Path(__file__).parent / "results"
SETTINGS = EngineSettings(kind="vllm", vllm=VllmSettings(max_batch=16, max_context_tokens=2048, kv_cache_gib=1))


def write(folder: Path, name: str, where: dict[str, Any], result: dict[str, Any], table: str) -> None:
    folder.mkdir(exist_ok=True)
    command = " ".join(["python -m tests.bench.metering", *sys.argv[1:]])
    document = {"command": command, "machine": where} | result
    (folder / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    origin = (
        f"{where['cpu']}, {where['cores']} cores, {where['memory_gb']} GB, {where['date']}, "
        f"load average before {where['load_before']:.1f}; `{command}`"
    )
    (folder / f"{name}.md").write_text(f"{origin}\n\n{table}\n")
    print(table, flush=True)


async def run(wanted: list[str], requests: int, clients: int, pairs: int, folder: Path, path: Path | None) -> None:
    where = machine()
    if path is None:
        config = load_config(None, {"admission.max_concurrency": 16, "engine.vllm.max_batch": 16}, {}).config
        settings = SETTINGS
        # without the memory's bandwidth no roofline is drawn, and the weights fall back to FLOPs
        ensure_calibration(engine_cores(SETTINGS.vllm, sorted(os.sched_getaffinity(0))), print)
    else:
        config = load_config(path, {}, {}).config
        settings = config.engine
    made: list[Stack] = []
    engine = VllmEngine(settings, lambda steps: made[0].link.steps(steps) if made else None, print)
    await engine.start()
    try:
        if "mixed" in wanted:
            async with stack(engine, config) as first:
                made[:] = [first]
                result = await mixed.mixed_run(first, requests=requests, clients=clients)
            write(folder, "mixed", where, result, mixed.table(result))
        if "overhead" in wanted:
            async with stack(engine, config) as second:
                made[:] = [second]
                result = await overhead.overhead(second, pairs=pairs, requests=24, clients=8)
            write(folder, "overhead", where, result, overhead.table(result))
    finally:
        await engine.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("parts", nargs="*", metavar="mixed|overhead")
    options.add_argument("--requests", type=int, default=500)
    options.add_argument("--clients", type=int, default=16, help="of the mixed run")
    options.add_argument("--pairs", type=int, default=20)
    options.add_argument("--out", type=Path, default=RESULTS)
    options.add_argument("--config", type=Path, help="as `wattgate serve` takes it; default: bundled model, batch 16")
    asked = options.parse_args()
    asyncio.run(
        run(asked.parts or ["mixed", "overhead"], asked.requests, asked.clients, asked.pairs, asked.out, asked.config)
    )


if __name__ == "__main__":
    main()
