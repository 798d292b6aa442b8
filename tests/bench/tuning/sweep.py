"""A sweep of the live cap, of every second one, on the real engine, and the engine model fitted to its steps.

    python -m tests.bench.tuning.sweep --out tests/bench/tuning/results

Writes ``sweep.json`` (figures of each cap, in the order they ran) and ``steps.jsonl`` (what the engine did, for
``fit.py``). Some ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from serving.tuning.lengths import Lengths
from serving.tuning.setting import Setting
from serving.tuning.synthetic import Synthetic
from tests.bench.tuning.stage import CLIENTS, OUTPUT, PROMPT, REQUESTS, bench_of, configuration, machine, tell

CAPS = (8, 32, 12, 24, 4, 20, 16, 28, 6, 18, 14, 30, 10, 26, 22, 2)
"""Out of order, so that a drift of the machine is no trend."""
ALONE_REQUESTS = 6
"""At a cap of 1 all of them would take three minutes; a rate needs no more than a few."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=640.0, help="start no run after this long")
    parser.add_argument("--config", type=Path, help="as `wattgate serve` takes it; default: the defaults")
    parser.add_argument("--caps", type=lambda text: tuple(map(int, text.split(","))), default=CAPS)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--prompt", type=lambda text: Lengths.parse(text, "--prompt"), default=PROMPT)
    parser.add_argument("--output", type=lambda text: Lengths.parse(text, "--output"), default=OUTPUT)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = configuration(path=arguments.config)
    before = machine(config)
    began = time.monotonic()
    bench = bench_of(config, most_cap=max(arguments.caps), clients=arguments.clients)
    workload = Synthetic(arguments.requests, 1.0, arguments.prompt, arguments.output, seed=0).workload()
    runs, marks = [], []
    try:
        for number, cap in enumerate((*arguments.caps, 1)):
            if time.monotonic() - began > arguments.seconds:
                tell(f"out of time before cap {cap}")
                break
            asked = workload if cap > 1 else workload.head(ALONE_REQUESTS)
            bench.clients = arguments.clients if cap > 1 else 1
            figures = bench.run(Setting(cap), asked, seed=number, hopeless=False)
            marks.append(len(bench.steps))
            tell(
                f"cap {cap}: {figures['output_tokens_per_second']:.1f} tokens/s, itl p95 "
                f"{figures['itl_p95_seconds']:.3f} s, {figures['grams_per_1k_output_tokens']} g/1k"
            )
            runs.append({"cap": cap, "clients": bench.clients, "load_average": round(os.getloadavg()[0], 2), **figures})
        steps = bench.steps
    finally:
        bench.close()
        asked_of = {
            "requests": arguments.requests,
            "clients": arguments.clients,
            "prompt_words": str(arguments.prompt),
            "output_tokens": str(arguments.output),
        }
        document = {"machine": before, "workload": asked_of, "runs": runs}
        (arguments.out / "sweep.json").write_text(json.dumps(document, indent=1) + "\n")
    with (arguments.out / "steps.jsonl").open("w") as file:
        number = 0
        for index, record in enumerate(steps):
            while number < len(marks) - 1 and index >= marks[number]:
                number += 1
            values = [record.steps, record.sequence_steps, record.prompt_tokens, record.context_tokens]
            file.write(json.dumps([runs[number]["cap"], *map(int, values), round(record.seconds, 5)]) + "\n")


if __name__ == "__main__":
    main()
