"""Driving a gateway: open loop (requests leave when the workload says) and closed loop (N clients, one after another).

A request's latency counts from when it should have been sent. In an open loop that is its arrival time, whatever the
sender or the server was doing then; in a closed loop the moment its client became free.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from metering.errors import BadInput
from serving.tuning.outcome import Outcome
from serving.tuning.workload import Workload

Told = Callable[[Outcome], None]


class Timer(Protocol):
    """Seconds since the run's start, and waiting until one."""

    def now(self) -> float: ...

    async def until(self, seconds: float) -> None: ...


class LoopTimer:
    """The event loop's clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()

    def now(self) -> float:
        return self._loop.time() - self._start

    async def until(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds - self.now()))


class Sender(Protocol):
    """Sends request ``index`` now; an error is an outcome, not an exception."""

    async def __call__(self, index: int, timer: Timer) -> Outcome: ...


async def open_loop(
    workload: Workload, send: Sender, timer: Timer, told: Told, *, stop: Callable[[], bool] = lambda: False
) -> list[Outcome]:
    """Send each request at its arrival time; never waits for an answer before the next. ``stop`` ends the sending."""
    outcomes: list[Outcome] = []

    async def one(index: int, intended: float) -> None:
        outcome = replace(await send(index, timer), intended_seconds=intended)
        outcomes.append(outcome)
        told(outcome)

    async with asyncio.TaskGroup() as tasks:
        for index, intended in enumerate(workload.arrival_seconds.tolist()):
            await timer.until(intended)
            if stop():
                break
            tasks.create_task(one(index, intended))
    return outcomes


async def closed_loop(
    workload: Workload,
    send: Sender,
    timer: Timer,
    told: Told,
    *,
    clients: int,
    stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """``clients`` clients share the workload's requests in order, each sending its next when its last has ended.

    Raises:
        BadInput: less than one client.
    """
    if clients < 1:
        raise BadInput(f"a closed loop needs at least one client, got {clients}")
    indices = itertools.count()
    outcomes: list[Outcome] = []

    async def client() -> None:
        for index in indices:
            if index >= len(workload) or stop():
                return
            intended = timer.now()
            outcome = replace(await send(index, timer), intended_seconds=intended)
            outcomes.append(outcome)
            told(outcome)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(clients, len(workload))):
            tasks.create_task(client())
    return outcomes
