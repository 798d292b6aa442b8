"""The engine that is unloaded when idle: driven by hand, nothing sleeps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from metering.work import Method
from serving.engines.base import (
    EngineAnswer,
    EngineModel,
    EngineRequest,
    EngineStartError,
    EngineStatus,
    WorkSink,
)
from serving.engines.sleeping import Sleep, SleepingEngine
from serving.errors import EngineUnavailable
from tests.unit.serving.fakes import ManualClock

REQUEST = EngineRequest("r", "/v1/completions", {}, "m", "t")


class Inner:
    kind = "inner"
    method = Method.SIMULATED

    def __init__(self, world: World) -> None:
        self.world = world
        self.loaded = False

    async def start(self) -> None:
        self.world.starts += 1
        self.world.starting.set()
        await self.world.may_start.wait()
        if self.world.broken:
            raise EngineStartError("no memory left")
        self.loaded = True
        self.world.loaded += 1
        self.world.most_loaded = max(self.world.most_loaded, self.world.loaded)

    def models(self) -> tuple[EngineModel, ...]:
        return (EngineModel("m"),) if self.loaded else ()

    def status(self) -> EngineStatus:
        return EngineStatus(ready=self.loaded)

    def flush(self) -> float | None:
        return None

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        if not self.loaded:
            raise EngineUnavailable("not loaded")

        async def frames() -> AsyncIterator[bytes]:
            yield b"said"

        yield EngineAnswer(frames())

    async def close(self) -> None:
        self.world.unloading.set()
        await self.world.may_close.wait()
        if self.loaded:
            self.loaded = False
            self.world.loaded -= 1


class World:
    """An engine that takes 10 s to load on a node of 20 W idle, 5 W without engine, 50 W while loading."""

    def __init__(self, wake_timeout_seconds: float = 60.0, metered: bool = True) -> None:
        self.clock = ManualClock()
        self.joules: float | None = 0.0 if metered else None
        self.may_start, self.may_close = asyncio.Event(), asyncio.Event()
        self.starting, self.unloading = asyncio.Event(), asyncio.Event()
        self.may_start.set()
        self.may_close.set()
        self.starts = self.loaded = self.most_loaded = self.slept = 0
        self.broken = False
        self.sleeps: list[Sleep] = []
        self.parts: list[Sleep] = []
        self.others = 0
        """Engines on the same device."""
        self.engine = SleepingEngine(
            lambda: Inner(self),
            idle_seconds=30.0,
            wake_timeout_seconds=wake_timeout_seconds,
            metered_joules=self.metered,
            on_asleep=self.count,
            on_slept=self.parts.append,
            on_awake=self.sleeps.append,
            clock=self.clock,
        )

    async def metered(self) -> dict[str, float] | None:
        return None if self.joules is None or self.others else {"gpu": self.joules}

    def count(self) -> None:
        self.slept += 1

    def pass_time(self, seconds: float, watts: float) -> None:
        self.clock.advance(seconds)
        if self.joules is not None:
            self.joules += seconds * watts

    async def fall_asleep(self) -> None:
        await self.engine.tick()
        self.pass_time(30, watts=20)
        await self.engine.tick()
        assert self.engine.status().state == "asleep"
        self.starting.clear()

    async def ask(self) -> bytes:
        async with self.engine.run(REQUEST, lambda _: None) as answer:
            return b"".join([frame async for frame in answer.frames])


async def test_it_is_unloaded_after_the_idle_time_and_not_before() -> None:
    world = World()
    await world.engine.start()
    await world.engine.tick()
    world.pass_time(29.9, watts=20)
    await world.engine.tick()
    assert (world.engine.status().state, world.loaded) == ("awake", 1)
    world.pass_time(0.1, watts=20)
    await world.engine.tick()
    assert (world.engine.status().state, world.loaded, world.slept) == ("asleep", 0, 1)


async def test_a_request_starts_the_idle_time_again_and_one_that_runs_holds_it_off() -> None:
    world = World()
    await world.engine.start()
    await world.engine.tick()
    world.pass_time(29, watts=20)
    async with world.engine.run(REQUEST, lambda _: None):
        world.pass_time(500, watts=20)
        await world.engine.tick()
    await world.engine.tick()
    world.pass_time(29, watts=20)
    await world.engine.tick()
    assert world.engine.status().state == "awake"


async def test_while_asleep_it_is_ready_and_its_models_are_known() -> None:
    world = World()
    await world.engine.start()
    await world.fall_asleep()
    assert world.engine.status().ready
    assert [model.name for model in world.engine.models()] == ["m"]
    assert world.engine.flush() is None


async def test_requests_wait_for_one_load_and_are_answered() -> None:
    world = World()
    await world.engine.start()
    await world.fall_asleep()
    world.may_start.clear()
    asked = [asyncio.create_task(world.ask()) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.engine.status().state == "waking"
    asked[0].cancel()
    await asyncio.sleep(0)
    world.may_start.set()
    assert await asyncio.gather(*asked[1:]) == [b"said"] * 4
    assert world.starts == 2
    assert world.engine.status().state == "awake"


async def test_what_a_sleep_saved_is_metered_against_the_idle_time_before() -> None:
    world = World()
    await world.engine.start()
    await world.fall_asleep()
    world.pass_time(100, watts=5)
    world.may_start.clear()
    asked = asyncio.create_task(world.ask())
    await world.starting.wait()
    world.pass_time(10, watts=50)
    world.may_start.set()
    await asked
    (sleep,) = world.sleeps
    assert sleep == Sleep(100, 10, expected_joules=20 * 110, asleep_joules=500, wake_joules=500)
    assert sleep.saved_joules == 1200


async def test_a_sleep_is_told_while_it_goes_on_and_its_parts_add_up_to_the_whole() -> None:
    world = World()
    await world.engine.start()
    await world.fall_asleep()
    for _ in range(25):
        world.pass_time(1, watts=5)
        await world.engine.tick()
    assert [part.asleep_seconds for part in world.parts] == [10, 10]
    assert sum(part.saved_joules or 0 for part in world.parts) == 20 * 15
    world.may_start.clear()
    asked = asyncio.create_task(world.ask())
    await world.starting.wait()
    world.pass_time(10, watts=50)
    world.may_start.set()
    await asked
    (whole,) = world.sleeps
    assert whole.saved_joules == 20 * 35 - 5 * 25 - 500
    for name in ("asleep_seconds", "wake_seconds", "expected_joules", "asleep_joules", "wake_joules", "saved_joules"):
        assert sum(getattr(part, name) for part in world.parts) == getattr(whole, name)


async def test_what_a_sleep_saved_is_told_when_the_engine_is_closed_in_it() -> None:
    world = World()
    await world.engine.start()
    await world.fall_asleep()
    world.pass_time(4, watts=5)
    await world.engine.close()
    assert [(part.asleep_seconds, part.saved_joules) for part in world.parts] == [(4, 60)]


async def test_what_others_take_of_the_same_device_is_nobodys_saving() -> None:
    world = World()
    await world.engine.start()
    await world.fall_asleep()
    world.others = 1
    world.pass_time(10, watts=300)
    await world.engine.tick()
    await world.ask()
    assert [part.saved_joules for part in (*world.parts, *world.sleeps)] == [None, None, None]
    assert sum(part.asleep_seconds for part in world.parts) == 10


async def test_a_figure_that_was_missed_is_told_with_the_next() -> None:
    world = World()
    await world.engine.start()
    await world.fall_asleep()
    joules, world.joules = world.joules, None
    world.pass_time(10, watts=5)
    await world.engine.tick()
    assert joules is not None
    world.joules = joules + 50
    world.pass_time(10, watts=5)
    await world.engine.tick()
    assert [part.saved_joules for part in world.parts] == [None, 300]
    assert [part.asleep_seconds for part in world.parts] == [10, 10]


async def test_without_a_meter_the_savings_are_unknown() -> None:
    world = World(metered=False)
    await world.engine.start()
    await world.fall_asleep()
    await world.ask()
    assert world.sleeps[0].saved_joules is None


async def test_a_load_that_takes_too_long_is_told_with_when_to_come_again() -> None:
    world = World(wake_timeout_seconds=0.001)
    await world.engine.start()
    await world.fall_asleep()
    world.may_start.clear()
    with pytest.raises(EngineUnavailable) as refused:
        await world.ask()
    # the proxy sends a 503 to a sibling, and would wake that too
    assert (refused.value.code, refused.value.status) == ("engine_waking", 504)
    assert int(refused.value.headers["retry-after"]) >= 1
    world.may_start.set()
    assert await world.ask() == b"said"
    assert world.starts == 2, "the load went on for those who come later"


async def test_a_load_that_fails_is_fatal_so_that_the_replica_is_replaced() -> None:
    world = World()
    await world.engine.start()
    await world.fall_asleep()
    world.broken = True
    for _ in range(2):
        with pytest.raises(EngineUnavailable):
            await world.ask()
    status = world.engine.status()
    assert status.fatal
    assert "no memory left" in status.reason


async def test_there_are_never_two_engines_in_memory() -> None:
    world = World()
    await world.engine.start()
    await world.engine.tick()
    world.pass_time(30, watts=20)
    world.may_close.clear()
    unloading = asyncio.create_task(world.engine.tick())
    await world.unloading.wait()
    asked = asyncio.create_task(world.ask())
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.starts == 1, "the old one is still there"
    world.may_close.set()
    await unloading
    assert await asked == b"said"
    assert world.most_loaded == 1


async def test_closing_while_it_wakes_ends_the_load() -> None:
    world = World()
    await world.engine.start()
    await world.fall_asleep()
    world.may_start.clear()
    asked = asyncio.create_task(world.ask())
    await world.starting.wait()
    await world.engine.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert world.loaded == 0
