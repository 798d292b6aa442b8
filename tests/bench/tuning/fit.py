"""The engine model of the sweep's steps; needs no engine.

python -m tests.bench.tuning.fit --out tests/bench/tuning/results
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from metering.architecture import load_architecture
from serving.bundled_model import bundled_model_folder
from serving.placement.metering_setup import node_hardware
from serving.tuning.engine_fit import fit_engine_model
from serving.tuning.step_log import StepRecord
from tests.bench.tuning.stage import CLIENTS, configuration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs = json.loads((arguments.out / "sweep.json").read_text())["runs"]
    records = []
    for line in (arguments.out / "steps.jsonl").read_text().splitlines():
        _, steps, decoded, prompt, context, seconds = json.loads(line)
        records.append(StepRecord(decoded, prompt, context, seconds, steps))
    model = fit_engine_model(
        records,
        model="smollm2-135m-instruct",
        hardware=node_hardware(configuration()).detected,
        precision="float32",
        architecture=load_architecture(bundled_model_folder()),
        runs=[run | {"clients": 1 if run["cap"] == 1 else CLIENTS} for run in runs],
        source=f"closed loops at caps {sorted(run['cap'] for run in runs)}",
    )
    model.save(arguments.out / "engine_model.json")
    print(model)


if __name__ == "__main__":
    main()
