"""A million requests through the simulator: seconds and memory of this machine.

python tests/bench/tuning/million.py --out tests/bench/tuning/results
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np

from serving.tuning.engine_model import EngineModel, Plane
from serving.tuning.lengths import Lengths
from serving.tuning.simulation import Limits, simulate
from serving.tuning.synthetic import Synthetic

ENGINE = EngineModel("m", "d", (Plane(0.008, 0.0001, 0.00003, 1e-8),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=1_000_000)
    arguments = parser.parse_args()
    rows = []
    for replicas in (1, 50, 4000):
        drawn = Synthetic(
            arguments.requests, 20.0 * replicas, Lengths("lognormal", 220, 0.8), Lengths("lognormal", 120, 0.8)
        ).workload()
        wall, cpu = time.perf_counter(), time.process_time()
        run = simulate(drawn, ENGINE, Limits(cap=128), replicas=replicas)
        rows.append(
            {
                "requests": len(drawn),
                "replicas": replicas,
                "wall_seconds": round(time.perf_counter() - wall, 2),
                "cpu_seconds": round(time.process_time() - cpu, 2),
                "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "simulated_seconds": round(run.seconds, 1),
                "simulated_tokens": int(drawn.output_tokens.sum()),
                "ttft_p95_seconds": round(float(np.percentile(run.ttft_seconds, 95)), 4),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    document = {"load_average": os.getloadavg(), "cores": os.cpu_count(), "rows": rows}
    (arguments.out / "million.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
