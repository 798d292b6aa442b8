from __future__ import annotations

import asyncio

import pytest

from serving.api.client_gone import Sending, SlowReader
from tests.unit.serving.fakes import ManualClock

MOST_SECONDS = 30.0


class Line:
    """A client that reads when it is told to, and a loop's clock and timers by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.reads = asyncio.Event()
        self.timers: list[tuple[float, asyncio.TimerHandle]] = []
        self.sending = Sending(self.send, MOST_SECONDS, clock=self.clock, call_later=self.call_later)

    async def send(self, message: object) -> None:
        await self.reads.wait()

    def call_later(self, seconds: float, look: object) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.clock() + seconds, look, (), asyncio.get_running_loop())  # type: ignore[arg-type]
        self.timers.append((self.clock() + seconds, handle))
        return handle

    async def pass_(self, seconds: float) -> None:
        """Time goes by; what is due happens."""
        self.clock.advance(seconds)
        due = [handle for at, handle in self.timers if at <= self.clock() and not handle.cancelled()]
        self.timers = [(at, handle) for at, handle in self.timers if at > self.clock()]
        for handle in due:
            handle._run()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def answered(line: Line, messages: int, engine: asyncio.Event) -> None:
    with line.sending.cut():
        for _ in range(messages):
            await engine.wait()
            await line.sending({"type": "http.response.body"})


async def test_a_send_that_is_stuck_for_so_long_ends_the_answer() -> None:
    line, engine = Line(), asyncio.Event()
    engine.set()
    task = asyncio.create_task(answered(line, 1, engine))
    await asyncio.sleep(0)
    await line.pass_(29.0)
    assert not task.done()
    await line.pass_(1.0)
    with pytest.raises(SlowReader):
        await task


async def test_a_stuck_send_has_its_whole_time_from_its_own_beginning() -> None:
    line, engine = Line(), asyncio.Event()
    task = asyncio.create_task(answered(line, 1, engine))
    await asyncio.sleep(0)
    await line.pass_(29.0)
    engine.set()
    await asyncio.sleep(0)
    await line.pass_(29.0)
    assert not task.done()
    line.reads.set()
    await task
    assert all(handle.cancelled() for _, handle in line.timers)


async def test_an_engine_that_takes_long_is_nobodys_slow_reading() -> None:
    line, engine = Line(), asyncio.Event()
    line.reads.set()
    task = asyncio.create_task(answered(line, 2, engine))
    await asyncio.sleep(0)
    for _ in range(4):
        await line.pass_(31.0)
    assert not task.done()
    engine.set()
    await task
