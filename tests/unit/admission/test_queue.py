from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.admission.queue import AdmissionQueue, QueuePolicy
from serving.errors import DeadlineExceeded, RateLimited
from serving.tenancy.tenant import Priority
from tests.unit.serving.fakes import ManualClock

INTERACTIVE, STANDARD, BATCH = Priority


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Holder:
    """A request that holds its permit until it is released."""

    def __init__(self, queue: AdmissionQueue, priority: Priority = STANDARD, tenant: str = "t", **ask: Any) -> None:
        self.release = asyncio.Event()
        self.waited: float | None = None
        self.priority, self.tenant = priority, tenant
        deadline = ask.pop("deadline", None)
        self.deadline = deadline
        self.task = asyncio.create_task(self._hold(queue, deadline, ask))

    async def _hold(self, queue: AdmissionQueue, deadline: float | None, ask: dict[str, Any]) -> None:
        async with queue.permit(deadline, tenant=self.tenant, priority=self.priority, **ask) as waited:
            self.waited = waited
            await self.release.wait()

    @property
    def inside(self) -> bool:
        return self.waited is not None and not self.task.done()

    @property
    def waiting(self) -> bool:
        return self.waited is None and not self.task.done()

    @property
    def refused(self) -> str | None:
        if not self.task.done() or self.task.cancelled() or self.task.exception() is None:
            return None
        error = self.task.exception()
        assert isinstance(error, RateLimited | DeadlineExceeded)
        return error.code


async def finish(*holders: Holder) -> None:
    for holder in holders:
        holder.release.set()
    await asyncio.gather(*(holder.task for holder in holders), return_exceptions=True)


async def drain(queue: AdmissionQueue, holders: list[Holder], clock: ManualClock, seconds: float = 1.0) -> list[Holder]:
    """Release one after the other; the order in which the rest was admitted."""
    order: list[Holder] = [holder for holder in holders if holder.inside]
    for _ in range(len(holders)):
        running = [holder for holder in order if holder.inside]
        if not running:
            break
        clock.advance(seconds)
        running[0].release.set()
        await turn()
        order += [holder for holder in holders if holder.inside and holder not in order]
    await finish(*holders)
    assert queue.running == queue.waiting == queue.queued_prefill_tokens == 0
    return order


class QueueMachine(RuleBasedStateMachine):
    """Any interleaving of asking, releasing, cancelling, resizing and time."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.policy = QueuePolicy(
            max_queue=5,
            max_queued_prefill_tokens=100,
            standard_floor=0.25,
            batch_floor=0.25,
            interactive_reserve=0.25,
            promote_after_seconds=10.0,
        )
        self.cap = 4
        self.queue = AdmissionQueue(self.cap, clock=self.clock, policy=self.policy)
        self.holders: list[Holder] = []
        self.most = self.cap

    def go(self, action: Any) -> Any:
        async def step() -> Any:
            out = action()
            await turn()
            return out

        out = self.runner.run(step())
        for holder in self.holders:
            if holder.task.done() and not holder.task.cancelled():
                holder.task.exception()
        self.holders = [holder for holder in self.holders if not holder.task.done()]
        return out

    @rule(
        priority=st.sampled_from(Priority),
        tenant=st.sampled_from("abc"),
        tokens=st.sampled_from([0, 30, 200]),
        seconds=st.sampled_from([None, 5.0, 100.0]),
    )
    def ask(self, priority: Priority, tenant: str, tokens: int, seconds: float | None) -> None:
        deadline = None if seconds is None else self.clock() + seconds
        before = self.queue.running
        holder = self.go(lambda: Holder(self.queue, priority, tenant, prefill_tokens=tokens, deadline=deadline))
        if not holder.task.done():
            self.holders.append(holder)
            return
        assert isinstance(holder.task.exception(), RateLimited)
        if before < self.cap and priority is INTERACTIVE and self.queue.waiting == 0:
            raise AssertionError("refused although there was room")

    @precondition(lambda self: self.queue.running)
    @rule(pick=st.integers(0, 20), cancel=st.booleans())
    def end(self, pick: int, cancel: bool) -> None:
        inside = [holder for holder in self.holders if holder.inside]
        holder = inside[pick % len(inside)]
        self.go(holder.task.cancel if cancel else holder.release.set)
        self.most = max(self.cap, self.queue.running) if self.most > self.cap else self.cap

    @precondition(lambda self: self.queue.waiting)
    @rule(pick=st.integers(0, 20))
    def give_up(self, pick: int) -> None:
        waiting = [holder for holder in self.holders if holder.waiting]
        self.go(waiting[pick % len(waiting)].task.cancel)

    @precondition(lambda self: self.queue.waiting and self.queue.running)
    @rule(pick=st.integers(0, 20))
    def give_up_while_a_slot_comes_free(self, pick: int) -> None:
        inside = next(holder for holder in self.holders if holder.inside)
        waiting = [holder for holder in self.holders if holder.waiting]
        chosen = waiting[pick % len(waiting)]

        async def both() -> None:
            inside.release.set()
            await asyncio.sleep(0)
            chosen.task.cancel()

        def start() -> None:
            self._pending = asyncio.ensure_future(both())

        self.go(start)

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(cap=st.integers(1, 8))
    def resize(self, cap: int) -> None:
        self.cap = cap
        self.go(lambda: self.queue.resize(cap))
        self.most = max(cap, self.queue.running)

    @invariant()
    def capacity_is_never_exceeded_and_no_permit_is_lost(self) -> None:
        inside = [holder for holder in self.holders if holder.inside]
        assert self.queue.running == len(inside) <= self.most
        assert self.queue.waiting == sum(holder.waiting for holder in self.holders) <= self.policy.max_queue
        for priority in Priority:
            assert self.queue.running_of(priority) == sum(holder.priority is priority for holder in inside)

    @invariant()
    def no_slot_is_idle_while_somebody_may_have_it(self) -> None:
        if self.queue.waiting_of(INTERACTIVE):
            assert self.queue.running >= self.cap
        if self.queue.waiting_of(STANDARD) or self.queue.waiting_of(BATCH):
            others = self.queue.running - self.queue.running_of(INTERACTIVE)
            assert self.queue.running >= self.cap or others >= self.cap - int(self.cap * 0.25)

    def teardown(self) -> None:
        async def end() -> None:
            self.queue.resize(100)
            await finish(*self.holders)

        self.runner.run(end())
        assert (self.queue.running, self.queue.waiting, self.queue.queued_prefill_tokens) == (0, 0, 0)
        self.runner.close()


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


async def test_the_most_urgent_class_goes_first() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, 10, clock)
    holders = [Holder(queue)]
    await turn()
    for priority in (BATCH, STANDARD, INTERACTIVE, BATCH, INTERACTIVE):
        holders.append(Holder(queue, priority))
        await turn()
    order = await drain(queue, holders, clock)
    assert [holder.priority for holder in order[1:]] == [INTERACTIVE, INTERACTIVE, STANDARD, BATCH, BATCH]


async def test_a_class_below_its_floor_goes_before_more_urgent_ones() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(4, clock=clock, policy=QueuePolicy(batch_floor=0.25))
    holders = [Holder(queue, INTERACTIVE) for _ in range(8)] + [Holder(queue, BATCH) for _ in range(3)]
    await turn()
    assert queue.running_of(BATCH) == 0
    holders[0].release.set()
    await turn()
    assert queue.running_of(BATCH) == 1
    holders[1].release.set()
    await turn()
    assert (queue.running_of(INTERACTIVE), queue.running_of(BATCH)) == (3, 1)
    await finish(*holders)


@pytest.mark.parametrize("low", [STANDARD, BATCH])
@pytest.mark.parametrize(
    ("cap", "admitted"), [pytest.param(3, True, id="room for all"), pytest.param(2, False, id="no room")]
)
async def test_a_floor_below_one_slot_is_one_slot_where_all_have_room(low: Priority, cap: int, admitted: bool) -> None:
    policy = QueuePolicy(standard_floor=0.1, batch_floor=0.05)
    queue = AdmissionQueue(1, clock=ManualClock(), policy=policy)
    queue.resize(cap)
    holders = [Holder(queue, INTERACTIVE) for _ in range(8)]
    await turn()
    late = Holder(queue, low)
    await turn()
    await finish(holders[0])
    await turn()
    assert late.inside is admitted
    await finish(*holders, late)


async def test_reserved_slots_wait_for_the_interactive_class() -> None:
    queue = AdmissionQueue(4, clock=ManualClock(), policy=QueuePolicy(interactive_reserve=0.25))
    batch = [Holder(queue, BATCH) for _ in range(5)]
    await turn()
    assert (queue.running, queue.waiting) == (3, 2)
    urgent = Holder(queue, INTERACTIVE)
    await turn()
    assert urgent.inside
    assert urgent.waited == 0.0
    await finish(urgent, *batch)


@pytest.mark.parametrize("every", [1, 2, 4])
async def test_no_class_starves_under_an_endless_urgent_load(every: int) -> None:
    clock = ManualClock()
    policy = QueuePolicy(max_queue=100, promote_after_seconds=10.0, promote_every=every)
    queue = AdmissionQueue(1, clock=clock, policy=policy)
    running = Holder(queue, INTERACTIVE)
    await turn()
    starving = [Holder(queue, BATCH), Holder(queue, STANDARD), Holder(queue, BATCH)]
    load = [running, *(Holder(queue, INTERACTIVE) for _ in range(2))]
    await turn()
    admitted = 0
    while any(holder.waiting for holder in starving):
        clock.advance(1.0)
        load.append(Holder(queue, INTERACTIVE))
        next(holder for holder in (*load, *starving) if holder.inside).release.set()
        await turn()
        admitted += 1
        assert admitted <= 10 + every * len(starving) + every
    await finish(*starving, *load)


async def test_tenants_of_a_class_share_slot_time_however_much_each_asks_for() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, 100, clock)
    holders = [Holder(queue, tenant="greedy") for _ in range(30)] + [Holder(queue, tenant="modest") for _ in range(10)]
    await turn()
    order = await drain(queue, holders, clock)
    first = Counter(holder.tenant for holder in order[:20])
    assert abs(first["greedy"] - first["modest"]) <= 1


async def test_long_answers_count_for_more_than_short_ones() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, clock=clock, policy=QueuePolicy(max_queue=200, promote_after_seconds=math.inf))
    holders = [Holder(queue, tenant=tenant) for _ in range(60) for tenant in ("long", "short")]
    await turn()
    taken: Counter[str] = Counter()
    while all(any(h.waiting for h in holders if h.tenant == tenant) for tenant in ("long", "short")):
        inside = next(holder for holder in holders if holder.inside)
        seconds = 9.0 if inside.tenant == "long" else 1.0
        taken[inside.tenant] += int(seconds)
        clock.advance(seconds)
        inside.release.set()
        await turn()
    assert taken["short"] >= 50
    assert abs(taken["long"] - taken["short"]) <= 18
    await finish(*holders)


async def test_being_away_earns_no_credit() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, 100, clock)
    early = [Holder(queue, tenant="early") for _ in range(10)]
    await turn()
    for holder in early[:5]:
        clock.advance(1.0)
        holder.release.set()
        await turn()
    late = [Holder(queue, tenant="late") for _ in range(10)]
    await turn()
    order = [holder for holder in await drain(queue, early + late, clock) if holder not in early[:5]]
    assert Counter(holder.tenant for holder in order[:6])["early"] >= 2


async def test_a_full_queue_refuses_with_the_time_its_work_will_take() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(2, 4, clock)
    for _ in range(3):
        async with queue.permit():
            clock.advance(3.0)
    clock.advance(1e6)  # an idle time says nothing about the rate
    holders = [Holder(queue) for _ in range(6)]
    await turn()
    with pytest.raises(RateLimited) as refused:
        async with queue.permit():
            pass
    assert refused.value.headers == {"retry-after": str(math.ceil(5 * 3.0 / 2))}
    assert refused.value.code == "queue_full"
    await finish(*holders)


@settings(max_examples=60)
@given(cap=st.integers(1, 6), waiting=st.integers(0, 24), seconds=st.floats(0.5, 60), spread=st.floats(0, 0.5))
async def test_retry_after_is_within_a_factor_of_two_of_when_there_was_room(
    cap: int, waiting: int, seconds: float, spread: float
) -> None:
    clock, draw = ManualClock(), random.Random(1)
    queue = AdmissionQueue(cap, waiting, clock)
    ends: list[tuple[float, int]] = []
    holders: list[Holder] = []

    async def arrive() -> None:
        holders.append(Holder(queue))
        await turn()

    async def next_end() -> None:
        """Time goes on to the next end of a request; what it lets in is timed from then on."""
        at, number = heapq.heappop(ends)
        clock.seconds = at
        holders[number].release.set()
        await turn()

    def time_those_inside() -> None:
        known = {number for _, number in ends}
        for number, holder in enumerate(holders):
            if holder.inside and number not in known:
                heapq.heappush(ends, (clock() + seconds * (1 + draw.uniform(-spread, spread)), number))

    # a steady load that fills the slots and the queue
    for _ in range(cap + waiting):
        await arrive()
        time_those_inside()
    for _ in range(3 * cap):
        await next_end()
        await arrive()
        time_those_inside()
    told, asked = queue.retry_after_seconds(), clock()
    with pytest.raises(RateLimited) as refused:
        async with queue.permit():
            pass
    assert refused.value.headers["retry-after"] == str(told)
    # whoever came now would be inside when all that wait have begun and one more has ended
    inside = holders[-1]
    while inside.waiting:
        await next_end()
        time_those_inside()
    if ends:
        await next_end()
    truth = clock() - asked
    # slots that were given out together come back together, a whole hold apart: now, or only then
    assert told <= 2 * truth + seconds + 1, (told, truth)
    assert told >= (truth - seconds) / 2, (told, truth)
    await finish(*holders)


async def test_the_youngest_of_the_least_urgent_gives_way_when_the_queue_is_full() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, 3, clock)
    first = Holder(queue)
    await turn()
    waiting = []
    for priority in (BATCH, BATCH, STANDARD):
        clock.advance(1.0)
        waiting.append(Holder(queue, priority))
        await turn()
    urgent = Holder(queue, INTERACTIVE)
    await turn()
    assert [holder.refused for holder in waiting] == [None, "queue_full", None]
    assert urgent.waiting
    least = Holder(queue, BATCH)
    await turn()
    assert least.refused == "queue_full", "its equals do not give way"
    await finish(first, urgent, *waiting)


async def test_queued_prompt_tokens_are_bounded() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, clock=clock, policy=QueuePolicy(max_queued_prefill_tokens=100))
    first = Holder(queue, prefill_tokens=1000)
    await turn()
    alone = Holder(queue, prefill_tokens=500)
    await turn()
    assert alone.waiting, "whoever waits alone is let in"
    more = Holder(queue, prefill_tokens=1)
    await turn()
    assert more.refused == "queue_full"
    urgent = Holder(queue, INTERACTIVE, prefill_tokens=60)
    await turn()
    assert alone.refused == "queue_full"
    assert urgent.waiting
    assert queue.queued_prefill_tokens == 60
    await finish(first, urgent)


async def test_nobody_is_displaced_for_one_who_is_refused_all_the_same() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, clock=clock, policy=QueuePolicy(max_queued_prefill_tokens=100))
    first = Holder(queue)
    await turn()
    same, less = Holder(queue, STANDARD, prefill_tokens=90), Holder(queue, BATCH, prefill_tokens=10)
    await turn()
    huge = Holder(queue, STANDARD, prefill_tokens=50)
    await turn()
    assert huge.refused == "queue_full"
    assert same.waiting
    assert less.waiting
    await finish(first, same, less)


async def test_a_deadline_that_the_queue_cannot_meet_is_refused_at_once() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, 10, clock)
    async with queue.permit():
        clock.advance(4.0)
    holders = [Holder(queue) for _ in range(3)]
    await turn()
    hopeless = Holder(queue, deadline=clock() + 11.0)
    await turn()
    assert hopeless.refused == "deadline_unmeetable"
    hopeful = Holder(queue, deadline=clock() + 13.0)
    urgent = Holder(queue, INTERACTIVE, deadline=clock() + 5.0)
    beside = Holder(queue, tenant="another", deadline=clock() + 13.0)
    await turn()
    assert (hopeful.waiting, urgent.waiting, beside.waiting) == (True, True, True)
    await finish(*holders, hopeful, urgent, beside)


async def test_the_time_that_most_answers_take_counts_against_the_deadline() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, 10, clock)
    for seconds in (2.0, 6.0) * 4:
        async with queue.permit():
            clock.advance(seconds)
    running = Holder(queue)
    await turn()
    # 4 s for the one that runs, the mean; then 2 s at least of its own
    hopeless = Holder(queue, deadline=clock() + 5.5)
    await turn()
    assert hopeless.refused == "deadline_unmeetable"
    hopeful = Holder(queue, deadline=clock() + 6.5)
    await turn()
    assert hopeful.waiting, "it may be as short as the shortest"
    await finish(running, hopeful)


async def test_few_answers_do_not_say_how_long_the_next_takes() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, 10, clock)
    for _ in range(7):
        async with queue.permit():
            clock.advance(4.0)
    running = Holder(queue)
    await turn()
    hopeful = Holder(queue, deadline=clock() + 4.5)
    await turn()
    assert hopeful.waiting
    await finish(running, hopeful)


async def test_requests_that_are_broken_off_do_not_shorten_what_is_expected() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, 10, clock)
    async with queue.permit():
        clock.advance(4.0)

    async def broken_off(seconds: float, error: Exception) -> None:
        async with queue.permit():
            clock.advance(seconds)
            raise error

    for _ in range(50):
        with pytest.raises(ConnectionError):
            await broken_off(0.01, ConnectionError("the engine has died"))
    assert queue.retry_after_seconds() == 4
    with pytest.raises(TimeoutError):
        await broken_off(10.0, TimeoutError())
    assert queue.retry_after_seconds() == 7, "one that was ended late would have lasted longer still"


async def test_whoever_waited_beyond_its_deadline_gets_no_slot() -> None:
    clock = ManualClock()
    queue = AdmissionQueue(1, 10, clock)
    first, late, next_one = Holder(queue), Holder(queue, deadline=clock() + 5.0), Holder(queue)
    await turn()
    clock.advance(6.0)
    first.release.set()
    await turn()
    assert late.refused == "deadline_before_run"
    assert next_one.inside
    await finish(next_one)


async def test_a_larger_cap_lets_waiting_ones_in_at_once() -> None:
    queue = AdmissionQueue(1, 10, ManualClock())
    holders = [Holder(queue) for _ in range(4)]
    await turn()
    queue.resize(3)
    await turn()
    assert (queue.running, queue.waiting) == (3, 1)
    await finish(*holders)


@pytest.mark.parametrize("shares", [{"batch_floor": -0.1}, {"batch_floor": 0.6, "interactive_reserve": 0.6}])
def test_shares_that_do_not_fit_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sum to at most 1"):
        QueuePolicy(**shares)
