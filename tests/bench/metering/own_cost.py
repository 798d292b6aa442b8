"""CPU time in the meter's own code, counted call by call: two runs need not be compared on a machine that is shared."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from serving.engines.vllm import VllmEngine
from tests.bench.metering.stack import Stack


def cpu_seconds() -> float:
    """Of this process and all below it: the engine core is one of them."""
    here = psutil.Process()
    total = 0.0
    for process in (here, *here.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class OwnCost:
    """Seconds of CPU by part, the counting itself included."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def counted(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[part] = self.seconds.get(part, 0.0) + time.thread_time() - started

        return wrapped


@contextlib.contextmanager
def own_cost(made: Stack) -> Iterator[OwnCost]:
    """Count the recorder of steps, the reports, the receipts of answers, and the node's windows and meters."""
    cost = OwnCost()
    spots: list[tuple[Any, str, str]] = [
        (made.link, "provisional", "receipts in answers"),
        (made.node, "submit", "taking reports"),
        (made.node, "advance", "closing windows"),
        (made.node, "read_meters", "reading meters"),
    ]
    if isinstance(made.engine, VllmEngine):
        spots += [(made.engine._recorder, name, "recording steps") for name in ("added", "stepped", "aborted", "flush")]
    for owner, name, part in spots:
        setattr(owner, name, cost.counted(part, getattr(owner, name)))
    try:
        yield cost
    finally:
        for owner, name, _ in spots:
            delattr(owner, name)
