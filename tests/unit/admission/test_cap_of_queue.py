from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.admission.queue import AdmissionQueue
from serving.errors import DeadlineExceeded, RateLimited
from tests.unit.serving.fakes import ManualClock


async def turn() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


class Holder:
    """A request that holds its permit until it is released."""

    def __init__(self, cap: AdmissionQueue, deadline: float | None = None) -> None:
        self.release = asyncio.Event()
        self.waited: float | None = None
        self.task = asyncio.create_task(self._hold(cap, deadline))

    async def _hold(self, cap: AdmissionQueue, deadline: float | None) -> None:
        async with cap.permit(deadline) as waited:
            self.waited = waited
            await self.release.wait()

    @property
    def inside(self) -> bool:
        return self.waited is not None and not self.task.done()


class CapMachine(RuleBasedStateMachine):
    """Any interleaving of asking, releasing, cancelling and resizing, against a list and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.limit, self.queue = 2, 3
        self.cap = AdmissionQueue(self.limit, self.queue, self.clock)
        self.inside: list[Holder] = []
        self.waiting: deque[Holder] = deque()

    def go(self, action: Any) -> Any:
        async def step() -> Any:
            out = action()
            await turn()
            return out

        return self.runner.run(step())

    def admit(self) -> None:
        while self.waiting and len(self.inside) < self.limit:
            self.inside.append(self.waiting.popleft())

    @rule()
    def ask(self) -> None:
        full = len(self.waiting) >= self.queue
        holder = self.go(lambda: Holder(self.cap))
        if not self.waiting and len(self.inside) < self.limit:
            self.inside.append(holder)
        elif full:
            with pytest.raises(RateLimited):
                holder.task.result()
        else:
            self.waiting.append(holder)

    @precondition(lambda self: self.inside)
    @rule(pick=st.integers(0, 20))
    def release(self, pick: int) -> None:
        holder = self.inside.pop(pick % len(self.inside))
        self.clock.advance(0.5)
        self.go(holder.release.set)
        self.admit()

    @precondition(lambda self: self.inside)
    @rule(pick=st.integers(0, 20))
    def cancel_inside(self, pick: int) -> None:
        holder = self.inside.pop(pick % len(self.inside))
        self.go(holder.task.cancel)
        self.admit()

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 20))
    def cancel_waiting(self, pick: int) -> None:
        holder = self.waiting[pick % len(self.waiting)]
        self.waiting.remove(holder)
        self.go(holder.task.cancel)
        assert holder.task.cancelled()

    @precondition(lambda self: self.waiting and self.inside)
    @rule(pick=st.integers(0, 20))
    def cancel_in_the_moment_of_admission(self, pick: int) -> None:
        done, first = self.inside.pop(pick % len(self.inside)), self.waiting.popleft()

        def both() -> None:
            done.release.set()
            # after the one that is done has passed its slot on, before the first in line has taken it
            asyncio.get_running_loop().call_soon(first.task.cancel)

        self.go(both)
        assert first.task.cancelled()
        self.admit()

    @rule(limit=st.integers(1, 5), queue=st.integers(0, 5))
    def resize(self, limit: int, queue: int) -> None:
        self.limit, self.queue = limit, queue
        self.go(lambda: self.cap.resize(limit, queue))
        self.admit()

    @invariant()
    def the_model_agrees(self) -> None:
        assert self.cap.running == len(self.inside)
        assert self.cap.waiting == len(self.waiting)
        assert all(holder.inside for holder in self.inside)
        assert not any(holder.inside for holder in self.waiting)
        assert self.cap.retry_after_seconds() >= 1

    def teardown(self) -> None:
        for holder in [*self.inside, *self.waiting]:
            self.go(holder.task.cancel)
        assert (self.cap.running, self.cap.waiting) == (0, 0)
        self.runner.close()


TestCap = CapMachine.TestCase
TestCap.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


async def test_waiters_are_served_in_the_order_they_came() -> None:
    cap = AdmissionQueue(1, 10)
    holders = [Holder(cap) for _ in range(4)]
    for holder in holders:
        await turn()
        assert [each.inside for each in holders if not each.task.done()] == [
            each is holder for each in holders if not each.task.done()
        ]
        holder.release.set()
        await holder.task


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    cap = AdmissionQueue(1, 10)
    first, second = Holder(cap), Holder(cap)
    await turn()
    first.release.set()
    third = Holder(cap)
    await turn()
    assert (second.inside, third.inside) == (True, False)
    for holder in (second, third):
        holder.release.set()
        await holder.task


async def test_a_full_queue_says_when_to_come_back() -> None:
    clock = ManualClock()
    cap = AdmissionQueue(1, 2, clock)
    for _ in range(5):
        async with cap.permit():
            clock.advance(3.0)
    holders = [Holder(cap) for _ in range(3)]
    await turn()
    with pytest.raises(RateLimited) as refused:
        async with cap.permit():
            pass
    # three ahead of it leave one every three seconds
    assert refused.value.headers == {"retry-after": str(math.ceil(3 * 3.0))}
    assert refused.value.code == "queue_full"
    for holder in holders:
        holder.release.set()
        await holder.task


async def test_without_history_the_retry_is_after_a_second() -> None:
    clock = ManualClock()
    cap = AdmissionQueue(1, 0, clock)
    assert cap.retry_after_seconds() == 1
    for _ in range(3):
        async with cap.permit():
            pass
    assert cap.retry_after_seconds() == 1


async def test_a_deadline_that_has_passed_ends_the_waiting_and_frees_the_place() -> None:
    clock = ManualClock()
    cap = AdmissionQueue(1, 1, clock)
    holder = Holder(cap)
    await turn()
    with pytest.raises(DeadlineExceeded):
        async with cap.permit(clock() - 1.0):
            pass
    assert (cap.running, cap.waiting) == (1, 0)
    holder.release.set()
    await holder.task
    async with cap.permit(clock() - 1.0) as waited:
        assert waited == 0.0


async def test_the_time_waited_is_told() -> None:
    clock = ManualClock()
    cap = AdmissionQueue(1, 1, clock)
    first, second = Holder(cap), Holder(cap)
    await turn()
    clock.advance(2.5)
    first.release.set()
    await turn()
    assert (first.waited, second.waited) == (0.0, 2.5)
    second.release.set()
    await second.task


async def test_an_error_inside_gives_the_permit_back() -> None:
    cap = AdmissionQueue(1, 0)
    for _ in range(3):
        with pytest.raises(KeyError):
            async with cap.permit():
                raise KeyError
    assert cap.running == 0


async def test_lowering_the_cap_lets_the_running_ones_finish() -> None:
    cap = AdmissionQueue(3, 10)
    holders = [Holder(cap) for _ in range(4)]
    await turn()
    cap.resize(1)
    assert cap.running == 3
    for expected in (2, 1, 1):
        next(holder for holder in holders if holder.inside).release.set()
        await turn()
        assert cap.running == expected
    next(holder for holder in holders if holder.inside).release.set()
    await asyncio.gather(*(holder.task for holder in holders))


@pytest.mark.parametrize("cap", [0, -1])
def test_a_cap_below_one_is_refused(cap: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        AdmissionQueue(1, 1).resize(cap)
