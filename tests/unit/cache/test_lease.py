from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache.lease import Leases, LeaseSettings
from cache.memory import MemoryStore
from cache.observer import Loss, Operation
from cache.relay_store import Batch
from cache.store import StoreUnavailable
from tests.unit.cache.fakes import ManualClock, Recorder, Sleeper
from tests.unit.cache.store_contract import HOUR, address, answer, budget


class Kit:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)
        self.observer = Recorder()
        self.sleeper = Sleeper(self.clock)

    def replica(self, store: Any = None) -> Leases:
        return Leases(
            store or self.store,
            observer=self.observer,
            budget=budget,
            settings=LeaseSettings(lease_seconds=3.0, declined_seconds=1.0),
            sleep=self.sleeper,
        )


class Run:
    """One replica's run, held and released by hand."""

    def __init__(self, leases: Leases, rank: int = 0, *, follow: bool = False) -> None:
        self.turn: Any = None
        self.rank = rank
        self.follow = follow
        self.go = asyncio.Event()
        self.store_it = True
        self.task = asyncio.create_task(self._run(leases))

    async def _run(self, leases: Leases) -> None:
        async with leases.turn(address(1), rank=lambda: self.rank, follow=self.follow) as turn:
            self.turn = turn
            if turn.answer is None:
                await self.go.wait()
                if self.store_it:
                    await leases._store.put(answer(address(1)), HOUR, budget())
                    turn.stored = True


@pytest.fixture
def kit() -> Kit:
    return Kit()


async def test_one_replica_runs_and_the_others_get_its_body(kit: Kit) -> None:
    runs = [Run(kit.replica()) for _ in range(5)]
    await kit.sleeper.forward(1.0)
    assert [run.turn is not None for run in runs] == [True, False, False, False, False]
    assert runs[0].turn.lease is not None
    runs[0].go.set()
    await kit.sleeper.forward(0.5)
    assert [(run.turn.answer, run.turn.waited) for run in runs[1:]] == 4 * [(answer(address(1)), True)]
    await asyncio.gather(*(run.task for run in runs))


async def test_nobody_waits_for_a_less_urgent_run_that_has_not_begun(kit: Kit) -> None:
    slow = Run(kit.replica(), rank=2)
    await kit.sleeper.forward(0.1)
    urgent, third = Run(kit.replica()), Run(kit.replica(), rank=2)
    await kit.sleeper.forward(0.1)
    assert (slow.turn.answer, urgent.turn.answer, third.turn) == (None, None, None)
    urgent.go.set()
    await kit.sleeper.forward(0.5)
    assert third.turn.answer == answer(address(1))
    slow.go.set()
    await asyncio.gather(slow.task, urgent.task, third.task)


async def test_a_run_that_has_begun_is_waited_for_whatever_its_class(kit: Kit) -> None:
    slow = Run(kit.replica(), rank=2)
    await kit.sleeper.forward(0.1)
    slow.rank = 0
    await kit.sleeper.forward(1.5)
    urgent = Run(kit.replica())
    await kit.sleeper.forward(0.5)
    assert urgent.turn is None
    slow.go.set()
    await kit.sleeper.forward(0.5)
    assert urgent.turn.waited
    await asyncio.gather(slow.task, urgent.task)


async def test_one_whose_frames_others_have_is_so_before_its_next_renewal(kit: Kit) -> None:
    slow = Run(kit.replica(), rank=2)
    await kit.sleeper.forward(0.1)
    slow.rank = 0
    assert await kit.store.relay.push(slow.turn.lease, [Batch(1, (b"frame",))], 1, HOUR, budget())
    urgent = Run(kit.replica())
    await kit.sleeper.forward(0.1)
    assert urgent.turn is None
    slow.go.set()
    await kit.sleeper.forward(0.5)
    assert urgent.turn.answer is not None
    await asyncio.gather(slow.task, urgent.task)


async def test_a_living_leader_keeps_its_lease_however_long_it_takes(kit: Kit) -> None:
    leader, waiting = Run(kit.replica()), Run(kit.replica())
    await kit.sleeper.forward(30.0)
    assert waiting.turn is None
    leader.go.set()
    await kit.sleeper.forward(0.5)
    assert waiting.turn.answer is not None
    await asyncio.gather(leader.task, waiting.task)


@pytest.mark.parametrize("follow", [False, True])
async def test_a_dead_leaders_place_is_taken_by_exactly_one(kit: Kit, follow: bool) -> None:
    dead = await kit.store.claim(address(1), "dead", 3.0, budget())
    assert dead.lease is not None
    heirs = [Run(kit.replica(), follow=follow) for _ in range(3)]
    await kit.sleeper.forward(2.5)
    assert [run.turn for run in heirs] == [None, None, None]
    await kit.sleeper.forward(1.0)
    leading = [run for run in heirs if run.turn is not None]
    assert len(leading) == 1
    assert leading[0].turn.lease.token > dead.lease.token
    leading[0].go.set()
    await kit.sleeper.forward(1.0)
    assert all(run.turn.answer for run in heirs if run is not leading[0])
    await asyncio.gather(*(run.task for run in heirs))


async def test_a_leader_that_fails_hands_over_at_once(kit: Kit) -> None:
    leader, heir = Run(kit.replica()), Run(kit.replica())
    await kit.sleeper.forward(0.5)
    leader.task.cancel()
    await kit.sleeper.forward(0.5)
    assert heir.turn.lease is not None
    heir.go.set()
    await asyncio.gather(leader.task, heir.task, return_exceptions=True)


async def test_an_answer_that_may_not_be_stored_sets_everyone_free(kit: Kit) -> None:
    runs = [Run(kit.replica()) for _ in range(4)]
    await kit.sleeper.forward(0.5)
    runs[0].store_it = False
    runs[0].go.set()
    await kit.sleeper.forward(0.5)
    assert [(run.turn.answer, run.turn.lease) for run in runs[1:]] == 3 * [(None, None)]
    for run in runs:
        run.go.set()
    await asyncio.gather(*(run.task for run in runs))


async def test_waiting_grows_to_a_limit(kit: Kit) -> None:
    await kit.store.claim(address(1), "other", HOUR, budget())
    waiting = Run(kit.replica())
    await kit.sleeper.forward(5.0)
    pauses = kit.sleeper.pauses
    assert pauses[0] == 0.02
    assert pauses == sorted(pauses)
    assert pauses[-1] == 0.25
    waiting.task.cancel()
    await asyncio.gather(waiting.task, return_exceptions=True)


async def test_with_the_store_away_everybody_runs(kit: Kit) -> None:
    class Away(MemoryStore):
        async def claim(self, *_: Any, **__: Any) -> Any:
            raise StoreUnavailable(Loss.BREAKER_OPEN)

    runs = [Run(kit.replica(Away())) for _ in range(2)]
    await kit.sleeper.forward(0.05)
    assert [(run.turn.answer, run.turn.lease) for run in runs] == 2 * [(None, None)]
    assert kit.observer.losses == 2 * [(Operation.LOCK, Loss.BREAKER_OPEN)]
    for run in runs:
        run.go.set()
    await asyncio.gather(*(run.task for run in runs))


async def test_a_store_lost_while_leading_is_counted_and_not_raised(kit: Kit) -> None:
    class Leaving(MemoryStore):
        async def renew(self, *_: Any, **__: Any) -> bool:
            raise StoreUnavailable(Loss.TIMEOUT)

        async def release(self, *_: Any, **__: Any) -> None:
            raise StoreUnavailable(Loss.CONNECTION)

    run = Run(kit.replica(Leaving(clock=kit.clock)))
    await kit.sleeper.forward(2.5)
    run.go.set()
    await run.task
    assert kit.observer.losses == [
        (Operation.LOCK, Loss.TIMEOUT),
        (Operation.LOCK, Loss.TIMEOUT),
        (Operation.LOCK, Loss.CONNECTION),
    ]
