"""The controller against the static default and the oracle cap, on drawn workloads and a modelled engine.

    python tests/bench/tuning/controller.py --out tests/bench/tuning/results

Simulated: the engine is a plane, not vLLM. The oracle is the static cap that an exhaustive sweep finds best for each
workload: most windows kept, then fewest busy seconds a token.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from serving.tuning.controller import Controller, ControlSettings
from serving.tuning.engine_model import EngineModel, Plane
from serving.tuning.replay import Replayed, replay
from serving.tuning.slo import Slo
from tests.bench.tuning.recorded import RECORDED

SLO = Slo.parse(["ttft_p95<=2s", "itl_p95<=0.05"])
DEFAULTS = (8, 32, 128)
CAPS = (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128)
ENGINES = {
    "with room": EngineModel("m", "d", (Plane(0.012, 0.001, 0.0001, 1e-7),)),
    "slow in a full batch": EngineModel("m", "d", (Plane(0.012, 0.002, 0.0001, 1e-7),)),
}


def figures(run: Replayed) -> dict[str, Any]:
    return {
        "windows_kept": round(run.kept_ratio, 4),
        "requests_kept": round(run.good_requests_ratio, 4),
        "busy_ms_per_token": round(1000 * run.busy_seconds / run.tokens, 4),
        "seconds": round(run.seconds, 1),
        "moves": sum(decision.applied for decision in run.decisions),
        "last_cap": run.caps[-1] if run.caps else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    settings = ControlSettings(SLO, highest_cap=128)
    rows = []
    for engine_name, engine in ENGINES.items():
        for name, workload in RECORDED.items():
            swept = [(cap, replay(workload, engine, cap, SLO)) for cap in CAPS]
            best = max(swept, key=lambda one: (round(one[1].kept_ratio, 3), -one[1].busy_seconds / one[1].tokens))
            for default in DEFAULTS:
                static = replay(workload, engine, default, SLO)
                held = replay(workload, engine, default, SLO, controller=Controller(settings, default))
                row = {
                    "engine": engine_name,
                    "workload": name,
                    "default_cap": default,
                    "static": figures(static),
                    "controller": figures(held),
                    "oracle_cap": best[0],
                    "oracle": figures(best[1]),
                }
                rows.append(row)
                print(json.dumps(row), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    document = {"method": "simulated", "slo": str(SLO), "rows": rows}
    (arguments.out / "controller.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [
        "| engine | workload | default cap | windows kept: static | controller | oracle (cap) | "
        "requests kept: static | controller | busy ms a token: static | controller | moves |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        a, b, c = row["static"], row["controller"], row["oracle"]
        lines.append(
            f"| {row['engine']} | {row['workload']} | {row['default_cap']} | {a['windows_kept']:.1%} | "
            f"{b['windows_kept']:.1%} | {c['windows_kept']:.1%} ({row['oracle_cap']}) | "
            f"{a['requests_kept']:.1%} | {b['requests_kept']:.1%} | "
            f"{a['busy_ms_per_token']:.2f} | {b['busy_ms_per_token']:.2f} | {b['moves']} |"
        )
    (arguments.out / "controller.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
