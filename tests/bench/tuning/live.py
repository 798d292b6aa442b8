"""`wattgate tune` on the real engine, then a sweep of the even caps and the one found: how far from the best is it?

    python -m tests.bench.tuning.live --out tests/bench/tuning/results

The machine drifts by a fifth between hours, so what the tuning run measured is not compared with an older sweep, nor
with the sweep that follows: the cap it found is measured again among the sweep's, and those that come near it once
more, in turn. Writes ``live_tune.json`` (all that the command printed) and ``live.json``. Some twenty minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from serving.tuning.goal import Goal
from serving.tuning.setting import Setting
from serving.tuning.slo import Slo
from serving.tuning.synthetic import Synthetic
from tests.bench.tuning.stage import CLIENTS, OUTPUT, PROMPT, REQUESTS, bench_of, configuration, machine, tell
from tests.bench.tuning.sweep import CAPS

PROMISE = "itl_p95<=300ms"
TRIALS = 5
"""Under a third of the sweep's caps."""
MINUTES = 15
REPEATS = 3
CONTENDERS = 3
AIM = 0.05


def tuned(folder: Path) -> dict[str, Any]:
    """What `wattgate tune` printed."""
    options = {
        "objective": "grams",
        "slo": PROMISE,
        "caps": "1-32",
        "trials": TRIALS,
        "minutes": MINUTES,
        "repeats": REPEATS,
        "clients": CLIENTS,
        "requests": REQUESTS,
        "rate": 1.0,
        "prompt-tokens": "uniform:8-24",
        "output-tokens": "uniform:24-40",
        "out": folder,
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-c", "from serving.cli import main; main()", "tune", *arguments, "--json"]
    # 1: nothing keeps the promise, which is a result too
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        sys.exit(f"wattgate tune ended with {done.returncode}")
    printed: dict[str, Any] = json.loads(done.stdout)
    for path in ("files", "study"):
        printed.pop(path, None)
    return printed


def swept(found: int, goal: Goal) -> list[dict[str, Any]]:
    """Every cap once, then the contenders in turn with what was found; in the order they ran."""
    runs: list[dict[str, Any]] = []
    workload = Synthetic(REQUESTS, 1.0, PROMPT, OUTPUT, seed=0).workload()
    bench = bench_of(configuration())

    def run(cap: int) -> None:
        nonlocal goal
        figures = bench.run(Setting(cap), workload, seed=len(runs), hopeless=False)
        # as the search counts them
        goal = goal.counting_as([figures])
        figures = goal.rated(figures, Setting(cap))
        runs.append({"cap": cap, **figures})
        grams, itl = figures["grams_per_1k_output_tokens"], figures["itl_p95_seconds"]
        tell(f"cap {cap}: itl p95 {itl:.3f} s, {grams:.4f} g/1k")

    try:
        for cap in sorted({*CAPS, found}, key=lambda cap: (*CAPS, found).index(cap)):
            run(cap)
        kept = sorted((one for one in runs if goal.slo.met(one)), key=goal.value)
        contenders = [one["cap"] for one in kept if one["cap"] != found][:CONTENDERS]
        for turn in range(REPEATS - 1):
            for cap in (found, *contenders) if turn % 2 else (*reversed(contenders), found):
                run(cap)
    finally:
        bench.close()
    return runs


def compared(runs: list[dict[str, Any]], found: int, goal: Goal) -> dict[str, Any]:
    """Means over the runs of each cap; one keeps the promise where it does so in the mean."""
    caps = {
        cap: {
            "runs": len(of_cap),
            "grams_per_1k_output_tokens": fmean(goal.value(one) for one in of_cap),
            "itl_p95_seconds": fmean(one["itl_p95_seconds"] for one in of_cap),
        }
        for cap in sorted({one["cap"] for one in runs})
        if (of_cap := [one for one in runs if one["cap"] == cap])
    }
    bound = goal.slo.bounds[0].seconds
    keeping = {cap: one for cap, one in caps.items() if one["itl_p95_seconds"] <= bound}
    best = min(keeping, key=lambda cap: keeping[cap]["grams_per_1k_output_tokens"], default=None)
    over = None
    if best is not None:
        over = caps[found]["grams_per_1k_output_tokens"] / caps[best]["grams_per_1k_output_tokens"] - 1
    return {
        "found_cap": found,
        "found_keeps_the_promise": found in keeping,
        "best_cap_of_the_sweep": best,
        "grams_above_the_best": over,
        "within_5_percent": found in keeping and over is not None and over <= AIM,
        "caps": caps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        printed = tuned(Path(folder))
    (arguments.out / "live_tune.json").write_text(json.dumps({**printed, "machine": before}, indent=1) + "\n")
    goal = Goal("grams", Slo.parse([PROMISE]))
    if printed["recommended"] is None:
        sys.exit(f"nothing keeps {PROMISE} here: {printed['why']}")
    found = int(printed["recommended"]["cap"])
    tell(f"found cap {found}: {printed['why']}")
    runs = swept(found, goal)
    result = {"machine": before, "promise": PROMISE, **compared(runs, found, goal), "sweep": runs}
    (arguments.out / "live.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key not in ("caps", "sweep", "machine")}))


if __name__ == "__main__":
    main()
