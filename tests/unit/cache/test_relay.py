from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from cache.memory import MemoryStore
from cache.observer import Loss, Operation
from cache.relay import Along, Outbound, RelayBroken, Relays, RelaySettings
from cache.relay_store import Batch, MemoryRelay
from cache.single_flight import Flight, SingleFlight
from cache.store import Budget, Lease, StoreUnavailable
from tests.unit.cache.fakes import ManualClock, Recorder, Sleeper
from tests.unit.cache.store_contract import HOUR, address, budget

RECEIPT = {"joules": 2.0}


class Counting(MemoryRelay):
    """Keeps what was asked of it; loses the calls named."""

    def __init__(self, store: MemoryStore, clock: ManualClock) -> None:
        super().__init__(store._holds, store._hold, clock=clock)
        self.calls: list[str] = []
        self.pushed: list[list[int]] = []
        self.losing: set[str] = set()

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.losing:
            raise StoreUnavailable(Loss.TIMEOUT)

    async def wishes(self, replica: str, budget: Budget) -> set[str]:
        self._called("wishes")
        return await super().wishes(replica, budget)

    async def push(
        self, lease: Lease, batches: Sequence[Batch], keep_from: int, life_seconds: float, budget: Budget
    ) -> bool:
        self._called("push")
        self.pushed.append([batch.number for batch in batches])
        return await super().push(lease, batches, keep_from, life_seconds, budget)

    async def follow(self, holder: Lease, after: int, budget: Budget) -> Any:
        self._called("follow")
        return await super().follow(holder, after, budget)


class Reader:
    """Someone in another replica who reads along."""

    def __init__(self, along: Along) -> None:
        self.along = along
        self.read: list[bytes] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for frame in self.along.frames():
            self.read.append(frame)


class Kit:
    """A run of one replica, its frames published by hand, and readers in another."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.sleeper = Sleeper(self.clock)
        self.store = MemoryStore(clock=self.clock)
        self.relay = Counting(self.store, self.clock)
        self.observer = Recorder()
        self.flights = SingleFlight()
        self.settings = RelaySettings(**settings)
        self.over = asyncio.Event()
        self.abort: BaseException | None = None

    def replica(self, name: str) -> Relays:
        return Relays(
            self.relay,
            replica=name,
            observer=self.observer,
            budget=budget,
            settings=self.settings,
            sleep=self.sleeper,
            monotonic=self.clock,
        )

    async def lead(self) -> Flight:
        """Begin the run; it ends when ``over`` is set."""
        claim = await self.store.claim(address(1), "leading-1", HOUR, budget())
        assert claim.lease is not None
        self.lease = claim.lease
        relays = self.replica("leading")

        async def produce(flight: Flight) -> None:
            async with relays.offer(self.lease, flight, lambda: self.flights.keep(flight)) as outbound:
                self.outbound: Outbound = outbound
                await self.over.wait()
                flight.finish()
                await outbound.end(RECEIPT)

        self.seat = self.flights.join("key", produce, stream=True)
        await self.sleeper.forward(0.01)
        return self.seat.flight

    def follow(self) -> Reader:
        return Reader(self.replica("following").follow(self.lease))

    async def followed(self) -> tuple[Flight, Reader]:
        """A run whose first frame another replica has read."""
        flight = await self.lead()
        flight.publish(b"data: 1")
        reader = self.follow()
        await self.sleeper.forward(1.0)
        return flight, reader


@pytest.fixture
def kit() -> Kit:
    return Kit()


def frames(*numbers: int) -> list[bytes]:
    return [b"data: %d" % number for number in numbers]


async def test_a_follower_reads_along_and_learns_the_end(kit: Kit) -> None:
    flight, reader = await kit.followed()
    assert reader.read == frames(1)
    flight.publish(b"data: 2")
    await kit.sleeper.forward(0.5)
    assert reader.read == frames(1, 2)
    kit.over.set()
    await kit.sleeper.forward(0.5)
    await reader.task
    assert reader.along.receipt == RECEIPT


async def test_a_run_that_nobody_wishes_for_sends_nothing(kit: Kit) -> None:
    flight = await kit.lead()
    for frame in frames(*range(50)):
        flight.publish(frame)
    await kit.sleeper.forward(2.0)
    kit.over.set()
    await kit.sleeper.forward(0.5)
    assert set(kit.relay.calls) == {"wishes"}
    assert len(kit.relay.calls) <= 2.0 / kit.settings.look_seconds + 1


async def test_one_look_serves_all_runs_of_a_replica_and_none_is_made_without_runs(kit: Kit) -> None:
    relays = kit.replica("leading")
    for number in range(20):
        await kit.store.claim(address(number), f"leading-{number}", HOUR, budget())
    async with (
        relays.offer(Lease(address(1), 1, "leading-1"), Flight("1", stream=True), kit.flights.keep),  # type: ignore[arg-type]
        relays.offer(Lease(address(2), 1, "leading-2"), Flight("2", stream=True), kit.flights.keep),  # type: ignore[arg-type]
    ):
        await kit.sleeper.forward(1.0)
        looks = len(kit.relay.calls)
        assert looks <= 1.0 / kit.settings.look_seconds + 1
    await kit.sleeper.forward(2.0)
    assert len(kit.relay.calls) == looks


async def test_a_run_goes_on_for_its_followers_alone_and_ends_when_they_have_gone(kit: Kit) -> None:
    flight, reader = await kit.followed()
    await kit.flights.leave(kit.seat)
    flight.publish(b"data: 2")
    await kit.sleeper.forward(5.0)
    assert reader.read == frames(1, 2)
    assert not flight.finished
    reader.task.cancel()
    await kit.sleeper.forward(kit.settings.wish_seconds + 0.5)
    assert flight.finished
    assert len(kit.flights) == 0


async def test_a_late_wish_after_a_pause_gets_the_run_from_its_first_frame(kit: Kit) -> None:
    flight = await kit.lead()
    flight.publish(b"data: 1")
    gone = kit.follow()
    await kit.sleeper.forward(1.0)
    gone.task.cancel()
    # longer than the frames are kept
    await kit.sleeper.forward(kit.settings.wish_seconds + kit.settings.life_seconds + 1.0, step=0.05)
    flight.publish(b"data: 2")
    late = kit.follow()
    await kit.sleeper.forward(1.0)
    assert late.read == frames(1, 2)
    late.task.cancel()
    kit.over.set()
    await kit.sleeper.forward(0.5)


async def test_a_dead_leaders_follower_with_frames_gets_an_error(kit: Kit) -> None:
    _, reader = await kit.followed()
    await kit.store.release(kit.lease, budget())
    await kit.sleeper.forward(1.0)
    with pytest.raises(RelayBroken):
        await reader.task
    assert reader.read == frames(1)
    kit.over.set()
    await kit.sleeper.forward(0.5)


async def test_a_leader_that_lost_its_lease_is_fenced_off_and_lets_go(kit: Kit) -> None:
    flight, reader = await kit.followed()
    await kit.store.release(kit.lease, budget())
    heir = (await kit.store.claim(address(1), "heir-1", HOUR, budget())).lease
    assert heir is not None
    flight.publish(b"data: 2")
    await kit.sleeper.forward(0.5)
    assert reader.read == frames(1)
    assert (await kit.relay.follow(heir, 0, budget())).batches == ()
    pushes = kit.relay.calls.count("push")
    flight.publish(b"data: 3")
    await kit.sleeper.forward(1.0)
    assert kit.relay.calls.count("push") == pushes
    kit.over.set()
    await kit.sleeper.forward(0.5)
    await asyncio.gather(reader.task, return_exceptions=True)


async def test_what_a_run_holds_in_the_store_is_bounded_and_who_joins_too_late_gets_nothing_of_it() -> None:
    kit = Kit(batch_bytes=100, held_bytes=1000)
    flight = await kit.lead()
    early = kit.follow()
    sent = []
    for number in range(50):
        sent.append(b"%099d" % number)
        flight.publish(sent[-1])
        await kit.sleeper.forward(0.3)
    assert early.read == sent
    followed = await kit.relay.follow(kit.lease, 0, budget())
    assert followed.batches[0].number > 1
    (held,) = kit.relay._runs.values()
    assert sum(batch.size_bytes for batch in held.batches.values()) <= 1000
    late = kit.replica("third").follow(kit.lease)
    assert [await late.look() for _ in range(3)] == [False, False, False]
    kit.over.set()
    await kit.sleeper.forward(0.5)
    await early.task


async def test_much_at_once_goes_out_in_pieces() -> None:
    kit = Kit(batch_bytes=100)
    flight = await kit.lead()
    everything = [b"%050d" % number for number in range(100)]
    for frame in everything:
        flight.publish(frame)
    reader = kit.follow()
    await kit.sleeper.forward(3.0)
    assert reader.read == everything
    assert max(map(len, kit.relay.pushed)) == 8
    kit.over.set()
    await kit.sleeper.forward(0.5)
    await reader.task


async def test_frames_are_neither_lost_nor_doubled_when_a_push_is(kit: Kit) -> None:
    flight, reader = await kit.followed()
    kit.relay.losing = {"push"}
    flight.publish(b"data: 2")
    await kit.sleeper.forward(0.3)
    kit.relay.losing = set()
    flight.publish(b"data: 3")
    await kit.sleeper.forward(0.5)
    assert reader.read == frames(1, 2, 3)
    assert (Operation.RELAY, Loss.TIMEOUT) in kit.observer.losses
    kit.relay.losing = {"push"}
    kit.over.set()
    await kit.sleeper.forward(0.05)
    kit.relay.losing = set()
    await kit.sleeper.forward(0.5)
    await reader.task
    assert reader.along.receipt == RECEIPT


async def test_the_end_is_written_after_a_store_that_was_away_for_seconds_though_no_wish_came_through(kit: Kit) -> None:
    flight, reader = await kit.followed()
    kit.relay.losing = {"push", "follow", "wishes"}
    # the wishes that were read are over
    await kit.sleeper.forward(kit.settings.wish_seconds + 0.5)
    flight.publish(b"data: 2")
    kit.over.set()
    await kit.sleeper.forward(kit.settings.life_seconds / 2 - 1.0)
    kit.relay.losing = set()
    await kit.sleeper.forward(1.0)
    await reader.task
    assert (reader.read, reader.along.receipt) == (frames(1, 2), RECEIPT)


async def test_a_wish_that_comes_while_the_end_is_tried_does_not_write_over_it(kit: Kit) -> None:
    _, reader = await kit.followed()
    kit.relay.losing = {"push"}
    kit.over.set()
    await kit.sleeper.forward(1.0)
    kit.outbound.wished()
    kit.relay.losing = set()
    await kit.sleeper.forward(1.0)
    await reader.task
    assert reader.along.receipt == RECEIPT


async def test_an_end_that_cannot_be_written_is_given_up_in_half_the_frames_life(kit: Kit) -> None:
    _, reader = await kit.followed()
    kit.relay.losing = {"push"}
    kit.over.set()
    await kit.sleeper.forward(kit.settings.life_seconds / 2 + 0.1)
    assert len(kit.flights) == 0
    reader.task.cancel()


def empty(kit: Kit) -> None:
    """As a server that was started again."""
    kit.relay.clear()
    kit.store._leases.clear()


async def test_a_store_that_comes_back_empty_breaks_no_stream_of_a_living_leader(kit: Kit) -> None:
    flight, reader = await kit.followed()
    empty(kit)
    await kit.sleeper.forward(1.0)
    assert await kit.store.renew(kit.lease, HOUR, budget())
    await kit.sleeper.forward(kit.settings.unheld_seconds)
    flight.publish(b"data: 2")
    await kit.sleeper.forward(0.5)
    empty(kit)
    await kit.sleeper.forward(0.5)
    flight.publish(b"data: 3")
    kit.over.set()
    await kit.sleeper.forward(1.0)
    await reader.task
    assert (reader.read, reader.along.receipt) == (frames(1, 2, 3), RECEIPT)


async def test_nor_is_a_dead_leader_waited_for_long_in_an_empty_store(kit: Kit) -> None:
    _, reader = await kit.followed()
    empty(kit)
    await kit.sleeper.forward(kit.settings.unheld_seconds + 0.5)
    with pytest.raises(RelayBroken):
        await reader.task
    kit.over.set()
    await kit.sleeper.forward(0.5)


async def test_a_follower_bears_a_short_loss_and_gives_up_after_a_long_one(kit: Kit) -> None:
    flight, reader = await kit.followed()
    kit.relay.losing = {"follow"}
    await kit.sleeper.forward(kit.settings.life_seconds / 2)
    kit.relay.losing = set()
    flight.publish(b"data: 2")
    await kit.sleeper.forward(1.0)
    assert reader.read == frames(1, 2)
    kit.relay.losing = {"follow"}
    await kit.sleeper.forward(kit.settings.life_seconds + 1.0)
    with pytest.raises(RelayBroken):
        await reader.task
    kit.over.set()
    await kit.sleeper.forward(0.5)
