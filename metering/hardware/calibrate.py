"""A short run that measures what the CPU here really does: a matrix product for FLOP/s, a stream for bytes/s.

The figures are those of this process on its present threads and of numpy's BLAS; the best of several repeats is kept,
for a peak is what the machine can do when left alone.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from metering.errors import BadInput
from metering.hardware.device import DetectedHardware, Figure

_SUSPICIOUS = 0.75
"""A tuned matrix product reaches 80 to 95 % of the peak of an idle core; below this share others were running."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured rates of the CPU. ``threads`` is how many hardware threads the process might use."""

    flops_per_second: float
    bandwidth_bytes_per_second: float
    threads: int
    matrix_size: int
    stream_bytes: int
    seconds: float

    def applied(self, hardware: DetectedHardware) -> DetectedHardware:
        """The hardware with measured figures in place of computed ones.

        Raises:
            BadInput: the hardware is not a CPU, or its figures cover another number of threads.
        """
        if hardware.kind != "cpu":
            raise BadInput(f"the calibration ran on the CPU; {hardware.name} is a {hardware.kind}")
        if hardware.threads is not None and hardware.threads != self.threads:
            raise BadInput(f"calibrated on {self.threads} threads, the figures are for {hardware.threads}")
        product = f"measured: fp32 matrix product of {self.matrix_size}, numpy BLAS, {self.threads} threads"
        stream = f"measured: copy of {self.stream_bytes / 1e6:.0f} MB, numpy, {self.threads} threads"
        notes = [note for note in hardware.device.notes if "calibrate" not in note]
        computed = hardware.device.peak_flops.get("fp32")
        if computed is not None and self.flops_per_second < _SUSPICIOUS * computed.value:
            notes.append(
                f"Measured {self.flops_per_second / computed.value:.0%} of the computed peak of "
                f"{computed.value / 1e9:.4g} GFLOP/s: the machine was busy; repeat the calibration when it is idle."
            )
        device = replace(
            hardware.device,
            peak_flops={**hardware.device.peak_flops, "fp32": Figure(self.flops_per_second, product)},
            bandwidth_bytes_per_second=Figure(self.bandwidth_bytes_per_second, stream),
            notes=tuple(notes),
        )
        return replace(hardware, device=device)


def calibrate(
    *,
    matrix_size: int = 2048,
    stream_bytes: int = 256 * 2**20,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> Calibration:
    """Measure this process's CPU; about two seconds by default.

    Args:
        matrix_size: side of the square fp32 matrices; 2 n^3 FLOPs a product.
        stream_bytes: size of the array copied, well above the caches; a copy reads and writes it.
        repeats: of each; the fastest counts.
        clock: seconds; a test's own.

    Raises:
        BadInput: a size or a number of repeats below 1, or numpy is not installed.
    """
    if min(matrix_size, stream_bytes, repeats) < 1:
        raise BadInput("matrix size, stream size and repeats must be at least 1")
    try:
        import numpy as np
    except ImportError as error:
        raise BadInput("calibration needs numpy: install it, or configure peak and bandwidth") from error
    began = clock()
    threads = len(os.sched_getaffinity(0))
    product = _fastest(_product(np, matrix_size), repeats, clock)
    with ThreadPoolExecutor(threads) as pool:
        stream = _fastest(_stream(np, stream_bytes, threads, pool), repeats, clock)
    return Calibration(
        flops_per_second=2 * matrix_size**3 / product,
        bandwidth_bytes_per_second=2 * stream_bytes / stream,
        threads=threads,
        matrix_size=matrix_size,
        stream_bytes=stream_bytes,
        seconds=clock() - began,
    )


def _product(np: Any, size: int) -> Callable[[], Any]:
    generator = np.random.default_rng(0)
    left, right = (generator.random((size, size), dtype=np.float32) for _ in range(2))
    out = np.empty((size, size), dtype=np.float32)
    return lambda: np.matmul(left, right, out=out)


def _stream(np: Any, size: int, threads: int, pool: ThreadPoolExecutor) -> Callable[[], Any]:
    """One copy split over as many threads as there are: numpy copies without the interpreter's lock."""
    source = np.ones(size, dtype=np.uint8)
    target = np.zeros(size, dtype=np.uint8)
    bounds = [size * index // threads for index in range(threads + 1)]
    slices = [slice(start, end) for start, end in itertools.pairwise(bounds)]

    def run() -> None:
        list(pool.map(lambda part: np.copyto(target[part], source[part]), slices))

    return run


def _fastest(work: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    work()  # first touch of the pages and start of the threads
    best = float("inf")
    for _ in range(repeats):
        began = clock()
        work()
        best = min(best, clock() - began)
    return max(best, 1e-9)
