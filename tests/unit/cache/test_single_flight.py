from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from cache.single_flight import Flight, FlightIncomplete, Seat, SingleFlight
from cache.streams import DONE, answer_to_sse
from tests.unit.cache.fakes import answering


class Engine:
    """A run whose frames are released by hand."""

    def __init__(self) -> None:
        self.calls = 0
        self.ended: list[str] = []
        self.storing = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self._frames: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()

    def release(self, *frames: bytes | BaseException | None) -> None:
        """None ends the run."""
        for frame in frames:
            self._frames.put_nowait(frame)

    async def __call__(self, flight: Flight) -> None:
        self.calls += 1
        try:
            while (frame := await self._frames.get()) is not None:
                if isinstance(frame, BaseException):
                    raise frame
                flight.publish(frame)
            flight.finish("receipt")
            self.storing.set()
            await self.may_end.wait()
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        else:
            self.ended.append("ended")


async def settle() -> None:
    """Let everything that can run, run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def read(seat: Seat, *, stream: bool = True) -> list[bytes]:
    async with seat:
        return [frame async for frame in seat.frames(stream=stream)]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def flights() -> AsyncIterator[SingleFlight]:
    flights = SingleFlight()
    yield flights
    await flights.close()


async def test_a_hundred_share_one_run(flights: SingleFlight, engine: Engine) -> None:
    seats = [flights.join("k", engine, stream=True) for _ in range(100)]
    assert [seat.leader for seat in seats] == [True] + 99 * [False]
    tasks = [asyncio.create_task(read(seat)) for seat in seats]
    engine.release(b"a", b"b", None)
    assert await asyncio.gather(*tasks) == 100 * [[b"a", b"b"]]
    assert engine.calls == 1
    assert {seat.flight.result for seat in seats} == {"receipt"}
    await settle()
    assert len(flights) == 0


async def test_a_follower_gets_frames_as_they_come_and_those_that_came_before(
    flights: SingleFlight, engine: Engine
) -> None:
    leader = flights.join("k", engine, stream=True)
    engine.release(b"a")
    await settle()
    follower = flights.join("k", engine, stream=True)
    frames = follower.frames(stream=True)
    assert await anext(frames) == b"a"
    engine.release(b"b")
    assert await anext(frames) == b"b"
    engine.release(None)
    assert [frame async for frame in frames] == []
    await flights.leave(leader)
    await flights.leave(follower)


async def test_a_flight_that_waits_is_overtaken_by_a_more_urgent_request_only(flights: SingleFlight) -> None:
    slow, fast, late = Engine(), Engine(), Engine()
    first = flights.join("k", slow, stream=True, rank=1, waits=lambda: True)
    assert not flights.join("k", late, stream=True, rank=1).leader
    urgent = flights.join("k", fast, stream=True, rank=0, waits=lambda: True)
    assert urgent.leader
    newcomer = flights.join("k", late, stream=True, rank=2)
    assert newcomer.flight is urgent.flight
    slow.release(b"slow", None)
    assert await read(first) == [b"slow"]
    assert len(flights) == 1, "the one that was overtaken does not take the other's place with it"
    fast.release(b"fast", None)
    assert await read(newcomer) == [b"fast"]
    assert late.calls == 0


async def test_a_flight_that_has_begun_is_joined_by_more_urgent_requests_too(flights: SingleFlight) -> None:
    run = Engine()
    seats = [flights.join("k", run, stream=True, rank=rank, waits=lambda: False) for rank in (2, 0)]
    run.release(b"a", None)
    assert [await read(seat) for seat in seats] == [[b"a"], [b"a"]]
    assert run.calls == 1


async def test_one_that_gives_frames_has_begun_though_its_run_is_elsewhere(flights: SingleFlight) -> None:
    along = Engine()
    first = flights.join("k", along, stream=True, rank=2, waits=lambda: True)
    along.release(b"a")
    await settle()
    urgent = flights.join("k", along, stream=True, rank=0, waits=lambda: True)
    assert urgent.flight is first.flight
    along.release(None)
    assert [await read(seat) for seat in (first, urgent)] == [[b"a"], [b"a"]]


async def test_different_keys_run_apart(flights: SingleFlight) -> None:
    one, other = Engine(), Engine()
    tasks = [asyncio.create_task(read(flights.join(key, run, stream=True))) for key, run in (("a", one), ("b", other))]
    one.release(b"1", None)
    other.release(b"2", None)
    assert await asyncio.gather(*tasks) == [[b"1"], [b"2"]]


async def test_a_leader_who_leaves_does_not_stop_the_followers(flights: SingleFlight, engine: Engine) -> None:
    leader = asyncio.create_task(read(flights.join("k", engine, stream=True)))
    follower = asyncio.create_task(read(flights.join("k", engine, stream=True)))
    engine.release(b"a")
    await settle()
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    engine.release(b"b", None)
    assert await follower == [b"a", b"b"]
    assert engine.ended == ["ended"]


async def test_when_the_last_leaves_the_run_has_ended_by_then(flights: SingleFlight, engine: Engine) -> None:
    tasks = [asyncio.create_task(read(flights.join("k", engine, stream=True))) for _ in range(2)]
    engine.release(b"a")
    await settle()
    for task, ended in zip(tasks, ([], ["CancelledError"]), strict=True):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert engine.ended == ended
    assert len(flights) == 0


async def test_nobody_boards_a_run_that_is_called_off(flights: SingleFlight, engine: Engine) -> None:
    class Stubborn(Engine):
        async def __call__(self, flight: Flight) -> None:
            try:
                await super().__call__(flight)
            finally:
                await self.may_end.wait()

    stubborn = Stubborn()
    stubborn.may_end.clear()
    alone = asyncio.create_task(read(flights.join("k", stubborn, stream=True)))
    await settle()
    alone.cancel()
    await settle()
    newcomer = flights.join("k", engine, stream=True)
    assert newcomer.leader
    stubborn.may_end.set()
    await asyncio.gather(alone, return_exceptions=True)
    engine.release(b"a", None)
    assert await read(newcomer) == [b"a"]


async def test_a_deadline_is_one_seats_own(flights: SingleFlight, engine: Engine) -> None:
    hasty, patient = (asyncio.create_task(read(flights.join("k", engine, stream=True))) for _ in range(2))
    await settle()
    hasty.cancel()
    engine.release(b"a", None)
    assert await patient == [b"a"]


async def test_an_error_reaches_everyone_after_the_frames_so_far(flights: SingleFlight, engine: Engine) -> None:
    seats = [flights.join("k", engine, stream=True) for _ in range(3)]
    engine.release(b"a", RuntimeError("engine died"))
    for seat in seats:
        frames = seat.frames(stream=True)
        assert await anext(frames) == b"a"
        with pytest.raises(RuntimeError, match="engine died"):
            await anext(frames)
        await flights.leave(seat)
    assert len(flights) == 0


async def test_after_an_error_the_next_starts_anew(flights: SingleFlight, engine: Engine) -> None:
    engine.release(RuntimeError("once"))
    with pytest.raises(RuntimeError):
        await read(flights.join("k", engine, stream=True))
    engine.release(b"a", None)
    assert await read(flights.join("k", engine, stream=True)) == [b"a"]


async def test_storing_is_not_cancelled_when_everyone_has_left(flights: SingleFlight, engine: Engine) -> None:
    engine.may_end.clear()
    engine.release(b"a", None)
    assert await read(flights.join("k", engine, stream=True)) == [b"a"]
    late = flights.join("k", engine, stream=True)
    assert not late.leader
    assert await read(late) == [b"a"]
    assert engine.ended == []
    engine.may_end.set()
    await settle()
    assert engine.ended == ["ended"]
    assert len(flights) == 0


async def test_a_fault_while_storing_reaches_nobody(flights: SingleFlight, engine: Engine) -> None:
    async def produce(flight: Flight) -> None:
        flight.publish(b"a")
        flight.finish()
        raise RuntimeError("store")

    assert await read(flights.join("k", produce, stream=True)) == [b"a"]


async def test_a_stream_follows_a_unary_run_and_the_reverse(flights: SingleFlight) -> None:
    body = answering(refusal=None)
    frames = answer_to_sse(body, include_usage=True)
    unary, streaming = Engine(), Engine()
    tasks = {
        (key, stream): asyncio.create_task(read(flights.join(key, run, stream=key == "s"), stream=stream))
        for key, run in (("u", unary), ("s", streaming))
        for stream in (True, False)
    }
    unary.release(orjson.dumps(body), None)
    streaming.release(*frames, None)
    for key in ("u", "s"):
        assert await tasks[key, True] == frames
        assert [orjson.loads(data) for data in await tasks[key, False]] == [body]


@pytest.mark.parametrize(
    ("stream", "frame"), [(True, DONE), (True, b"data: {}\n\n"), (False, b"{"), (False, b"[]"), (False, b"{}")]
)
async def test_what_cannot_be_converted_says_so(
    flights: SingleFlight, engine: Engine, stream: bool, frame: bytes
) -> None:
    seat = flights.join("k", engine, stream=stream)
    engine.release(frame, None)
    with pytest.raises(FlightIncomplete):
        await read(seat, stream=not stream)


async def test_closing_ends_every_run(engine: Engine) -> None:
    flights = SingleFlight()
    task = asyncio.create_task(read(flights.join("k", engine, stream=True)))
    await settle()
    await flights.close()
    with pytest.raises(FlightIncomplete):
        await task
    assert engine.ended == ["CancelledError"]
