"""Single flight within a replica: identical requests share one run, each with its own deadline and its own form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any

import orjson

from cache.streams import answer_to_sse, sse_to_answer

_LEAD_FRAMES = 64
"""How far a run may be ahead of its fastest reader; then it waits, as it would for one slow client."""


class FlightIncomplete(Exception):
    """The run that was joined ended without a complete answer to convert into the form asked for."""


class Flight:
    """One run and what it has published so far. The producer calls ``publish``, then ``finish``."""

    def __init__(
        self,
        key: str,
        *,
        stream: bool,
        rank: int = 0,
        waits: Callable[[], bool] = lambda: False,
    ) -> None:
        self.key = key
        self.stream = stream
        """The form of what is published: SSE frames, or one JSON body."""
        self.rank = rank
        """Of the class that it waits in; 0 is the most urgent."""
        self._waits = waits
        self.result: Any = None
        """What the producer gave to ``finish``: for followers' receipts."""
        self._frames: list[bytes] = []
        self._finished = False
        self._error: BaseException | None = None
        self._more: asyncio.Future[None] | None = None
        self._other_form: list[bytes] | None = None
        self._furthest = 0
        self._room: asyncio.Future[None] | None = None

    def waits(self) -> bool:
        """Whether its run has yet to begin. What gives frames has begun, though its run be another replica's."""
        return not self._frames and self._waits()

    async def room(self) -> None:
        """Wait until the fastest reader has come near; for the producer, between frames."""
        while len(self._frames) - self._furthest >= _LEAD_FRAMES:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def publish(self, frame: bytes) -> None:
        """Hand a frame to everyone aboard, also to those who come later."""
        self._frames.append(frame)
        self._wake()

    def finish(self, result: Any = None) -> None:
        """All is published. What the producer does after this (storing) is not cancelled when everyone leaves."""
        self.result = result
        self._finished = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Everyone aboard gets this error after the frames so far. Nothing happens after ``finish``."""
        if not self._finished:
            self._error = error
            self.finish()

    def published(self) -> Sequence[bytes]:
        """All so far, for who sends it on as it comes: a reader like the others, for the producer's ``room``."""
        self._reached(len(self._frames))
        return self._frames

    @property
    def finished(self) -> bool:
        return self._finished

    async def read(self) -> AsyncIterator[bytes]:
        """Every frame from the first on, as they come. Raises the producer's error."""
        position = 0
        while True:
            while position < len(self._frames):
                yield self._frames[position]
                position += 1
                self._reached(position)
            if self._finished:
                if self._error is not None:
                    raise self._error
                return
            if self._more is None:
                self._more = asyncio.get_running_loop().create_future()
            # Shielded: one reader's deadline must not cancel what the others wait for.
            await asyncio.shield(self._more)

    async def converted(self) -> list[bytes]:
        """The whole answer in the other form, once it is complete; converted once for all.

        Raises:
            FlightIncomplete: there is no complete answer.
        """
        frames = [frame async for frame in self.read()]
        if self._other_form is None:
            if self.stream:
                body = sse_to_answer(frames)
                if body is None:
                    raise FlightIncomplete("the run that was joined ended without a complete answer")
                self._other_form = [orjson.dumps(body)]
            else:
                self._other_form = _as_stream(b"".join(frames))
        return self._other_form

    def _reached(self, position: int) -> None:
        self._furthest = max(self._furthest, position)
        if self._room is not None and len(self._frames) - self._furthest < _LEAD_FRAMES:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def _wake(self) -> None:
        if self._more is not None:
            self._more.set_result(None)
            self._more = None


def _as_stream(data: bytes) -> list[bytes]:
    try:
        body = orjson.loads(data)
        return answer_to_sse(body, include_usage=True)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise FlightIncomplete("the run that was joined ended without a complete answer") from error


class Seat:
    """One request's place aboard a flight; leave by closing the context."""

    def __init__(self, flights: SingleFlight, flight: Flight, *, leader: bool) -> None:
        self._flights = flights
        self.flight = flight
        self.leader = leader
        """Whether this request started the run."""

    async def frames(self, *, stream: bool) -> AsyncIterator[bytes]:
        """The answer in the form asked for: frames as they come, converted only where the run has the other form.

        Raises:
            FlightIncomplete: it has the other form and ended without a complete answer.
        """
        if stream == self.flight.stream:
            async for frame in self.flight.read():
                yield frame
        else:
            for frame in await self.flight.converted():
                yield frame

    async def __aenter__(self) -> Seat:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._flights.leave(self)


class SingleFlight:
    """The flights of one replica. Keys carry the tenant, so flights are never shared across tenants."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._tasks: dict[Flight, asyncio.Task[None]] = {}
        self._aboard: dict[Flight, int] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def join(
        self,
        key: str,
        produce: Callable[[Flight], Awaitable[None]],
        *,
        stream: bool,
        rank: int = 0,
        waits: Callable[[], bool] = lambda: False,
    ) -> Seat:
        """A seat on the running flight, or on a new one that runs ``produce`` in a task of its own.

        A flight that still waits is not joined by a more urgent request, which would wait in that one's class:
        it begins its own, and newcomers board that.

        The producer's task ends when it returns, or is cancelled when nobody is aboard any more before
        ``finish``; ``leave`` then waits until it has ended, so that an engine's request is aborted by then.
        Call it without awaiting anything between the lookup's result and this, or look up again in the producer.
        """
        flight = self._flights.get(key)
        overtakes = flight is not None and rank < flight.rank and flight.waits()
        leader = flight is None or overtakes
        if flight is None or overtakes:
            flight = self._flights[key] = Flight(key, stream=stream, rank=rank, waits=waits)
            self._tasks[flight] = asyncio.create_task(self._run(flight, produce), name=f"flight-{key[:12]}")
        self._aboard[flight] = self._aboard.get(flight, 0) + 1
        return Seat(self, flight, leader=leader)

    def keep(self, flight: Flight) -> Seat:
        """One more seat on a flight that is under way, so that it goes on without its clients."""
        self._aboard[flight] = self._aboard.get(flight, 0) + 1
        return Seat(self, flight, leader=False)

    async def leave(self, seat: Seat) -> None:
        """Once per seat; ``Seat`` does it."""
        flight = seat.flight
        self._aboard[flight] -= 1
        if self._aboard[flight]:
            return
        del self._aboard[flight]
        task = self._tasks.get(flight)
        if task is None or flight.finished:
            return
        # From here on newcomers start anew: nobody boards a flight that is being called off.
        self._forget(flight)
        task.cancel()
        await asyncio.wait([task])

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, flight: Flight, produce: Callable[[Flight], Awaitable[None]]) -> None:
        try:
            await produce(flight)
            flight.finish(flight.result)
        except asyncio.CancelledError:
            flight.fail(FlightIncomplete("the run that was joined was called off"))
            raise
        except Exception as error:
            flight.fail(error)
        finally:
            self._forget(flight)
            self._tasks.pop(flight, None)

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
