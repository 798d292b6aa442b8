"""What NVML's energy counter of this machine's first GPU is: how often it moves, and whether it agrees with the power
readings, at rest and under a matrix product and a copy.

    python -m tests.bench.gpu.counter --out tests/bench/gpu/results
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml as nvml

SIDE, COPIED_BYTES = 8192, 2 * 2**30
EVERY_SECONDS = 0.005
Sample = tuple[float, int, float]
"""Seconds, millijoules counted, watts."""


def sample(handle: Any, seconds: float) -> list[Sample]:
    rows = []
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        energy, power = nvml.nvmlDeviceGetTotalEnergyConsumption(handle), nvml.nvmlDeviceGetPowerUsage(handle)
        rows.append((now, energy, power / 1000))
        time.sleep(EVERY_SECONDS)
    return rows


def told(rows: list[Sample], what: str, handle: Any) -> dict[str, Any]:
    seconds = rows[-1][0] - rows[0][0]
    moves = [(now[0], now[1] - before[1]) for before, now in itertools.pairwise(rows) if now[1] != before[1]]
    steps = sorted(1000 * (now[0] - before[0]) for before, now in itertools.pairwise(moves))
    joules = sorted(moved for _, moved in moves)
    integral = sum((now[0] - then[0]) * (then[2] + now[2]) / 2 for then, now in itertools.pairwise(rows))
    return {
        "what": what,
        "seconds": seconds,
        "counter_joules": (rows[-1][1] - rows[0][1]) / 1000,
        "counter_watts": (rows[-1][1] - rows[0][1]) / 1000 / seconds,
        "power_watts": integral / seconds,
        "moves": len(moves),
        "samples": len(rows),
        "step_ms": [round(steps[int(share * (len(steps) - 1))], 2) for share in (0, 0.5, 0.99)],
        "jump_mJ": [joules[int(share * (len(joules) - 1))] for share in (0, 0.5, 1)],
        "clock": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "temp": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
    }


def under(work: Callable[[], Any], handle: Any, seconds: float) -> tuple[list[Sample], float]:
    """Samples while ``work`` is done again and again, and how often a second."""
    import torch

    stop, count = threading.Event(), 0

    def again() -> None:
        nonlocal count
        while not stop.is_set():
            for _ in range(20):
                work()
            torch.cuda.synchronize()
            count += 20

    thread = threading.Thread(target=again)
    began = time.monotonic()
    thread.start()
    rows = sample(handle, seconds)
    stop.set()
    thread.join()
    return rows, count / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    results = [told(sample(handle, 8), "idle, no context", handle)]
    import torch

    left = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16)
    right, product = torch.randn_like(left), torch.empty_like(left)
    torch.cuda.synchronize()
    results.append(told(sample(handle, 5), "idle, context", handle))
    rows, rate = under(lambda: torch.mm(left, right, out=product), handle, 12)
    figures = told(rows, f"bf16 matrix product {SIDE}", handle)
    results.append({**figures, "tflops": rate * 2 * SIDE**3 / 1e12})
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    rows, rate = under(lambda: target.copy_(source), handle, 8)
    results.append({**told(rows, "device copy 2 GiB", handle), "gb_per_second": rate * 2 * COPIED_BYTES / 1e9})
    time.sleep(2)
    results.append(told(sample(handle, 6), "idle, context, after load", handle))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "counter.json").write_text(json.dumps(results, indent=1) + "\n")
    for row in results:
        print(f"{row['what']}: {row['counter_watts']:.1f} W counted, {row['power_watts']:.1f} W read")


if __name__ == "__main__":
    main()
