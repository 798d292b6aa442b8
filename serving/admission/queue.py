"""The one bounded queue before an engine: who runs next, who waits, who is refused at once."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serving.admission.line import Line, Waiter
from serving.errors import NeverBegun, RateLimited
from serving.tenancy.tenant import Priority

_HOLDS = 32
"""Completions that the drain rate is taken over."""
_HOLDS_TO_EXPECT_FROM = 8
"""Completions from which on a request's own time in its slot is expected: two for each quarter of them."""


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Shares are of the live cap, rounded down. A floor has at least one slot, where the cap has room for that and for
    an interactive request beside the floors."""

    max_queue: int = 256
    max_queued_prefill_tokens: int | None = None
    """Estimated prompt tokens waiting at most; a request that waits alone is always let in."""
    standard_floor: float = 0.0
    """Slots that the standard class is given first, while it has requests waiting."""
    batch_floor: float = 0.0
    interactive_reserve: float = 0.0
    """Slots that only the interactive class uses, kept free for it."""
    promote_after_seconds: float = 30.0
    """Whoever has waited so long is starved."""
    promote_every: int = 4
    """Of so many admissions one goes to the longest starved, whatever its class."""

    def __post_init__(self) -> None:
        shares = (self.standard_floor, self.batch_floor, self.interactive_reserve)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError("standard_floor, batch_floor and interactive_reserve must be shares that sum to at most 1")
        if self.promote_every < 1:
            raise ValueError(f"promote_every must be at least 1, got {self.promote_every}")


class AdmissionQueue:
    """Permits for the engine: never more than ``cap`` out at once.

    A free slot goes to the first of: a class below its floor; the longest starved, once in ``promote_every``;
    the most urgent class. Within a class tenants share slot-seconds evenly, and each tenant's requests are served
    in order. Counting and checking are one step without an await between, so the capacity cannot be exceeded.
    """

    def __init__(
        self,
        cap: int,
        max_queue: int = 256,
        clock: Callable[[], float] = time.monotonic,
        *,
        policy: QueuePolicy | None = None,
    ) -> None:
        """``policy``, where given, says the queue's length too."""
        self._cap = _checked(cap)
        self._policy = policy or QueuePolicy(max_queue=max_queue)
        self._floors = _floors(cap, self._policy)
        self._clock = clock
        self._lines = {priority: Line() for priority in Priority}
        self._holds: deque[float] = deque(maxlen=_HOLDS)
        self._since_promotion = self._policy.promote_every

    @property
    def cap(self) -> int:
        return self._cap

    @property
    def running(self) -> int:
        return sum(line.running for line in self._lines.values())

    @property
    def waiting(self) -> int:
        return sum(line.waiting for line in self._lines.values())

    @property
    def queued_prefill_tokens(self) -> int:
        return sum(line.prefill_tokens for line in self._lines.values())

    def running_of(self, priority: Priority) -> int:
        return self._lines[priority].running

    def waiting_of(self, priority: Priority) -> int:
        return self._lines[priority].waiting

    def resize(self, cap: int, max_queue: int | None = None, *, policy: QueuePolicy | None = None) -> None:
        """Change the cap now. Lowering it lets the running ones finish."""
        self._cap = _checked(cap)
        if policy is not None:
            self._policy = policy
        elif max_queue is not None:
            old = self._policy
            self._policy = QueuePolicy(
                max_queue,
                old.max_queued_prefill_tokens,
                old.standard_floor,
                old.batch_floor,
                old.interactive_reserve,
                old.promote_after_seconds,
                old.promote_every,
            )
        self._floors = _floors(cap, self._policy)
        self._admit()

    def retry_after_seconds(self) -> int:
        """Queued work over the drain rate of the last completions; 1 where nothing is known yet."""
        wait = self._wait_seconds(self.waiting + 1, self._cap)
        return 1 if wait is None else max(1, math.ceil(wait))

    @asynccontextmanager
    async def permit(
        self,
        deadline_seconds: float | None = None,
        *,
        tenant: str = "",
        priority: Priority = Priority.STANDARD,
        prefill_tokens: int = 0,
    ) -> AsyncIterator[float]:
        """Hold a slot; yields the seconds waited for it. ``deadline_seconds`` is a time of the clock.

        Raises:
            RateLimited: the queue is full, by requests or by prompt tokens; or the queue ahead and the request itself
                will last beyond the deadline; or a more urgent request needed the place. ``retry-after`` is computed.
            NeverBegun: no slot before the deadline.
        """
        asked = self._clock()
        waiter = Waiter(tenant, priority, prefill_tokens, asked, deadline_seconds)
        if self.waiting == 0 and self._allowed(priority):
            self._start(waiter)
        else:
            await self._queue(waiter)
        admitted = self._clock()
        complete = False
        try:
            yield admitted - asked
            complete = True
        finally:
            held = self._clock() - admitted
            # of one that was broken off it is known only that it would have lasted longer
            if complete or held > self._mean_hold_seconds():
                self._holds.append(held)
            self._lines[priority].released(waiter, held)
            self._admit()

    async def _queue(self, waiter: Waiter) -> None:
        self._check_deadline(waiter)
        self._make_room(waiter)
        waiter.slot = asyncio.get_running_loop().create_future()
        line = self._lines[waiter.priority]
        line.join(waiter)
        # slots may be free although others wait: theirs are kept for a class that is not here
        self._admit()
        deadline = waiter.deadline_seconds
        timeout = None if deadline is None else max(0.0, deadline - self._clock())
        try:
            async with asyncio.timeout(timeout):
                await waiter.slot
        except BaseException as error:
            if waiter.running:
                # admitted in the same moment as it gave up: pass the slot on
                line.released(waiter, 0.0)
                self._admit()
            else:
                line.leave(waiter)
            if isinstance(error, TimeoutError):
                raise NeverBegun from None
            raise

    def _check_deadline(self, waiter: Waiter) -> None:
        if waiter.deadline_seconds is None:
            return
        remaining = waiter.deadline_seconds - self._clock()
        if remaining <= 0:
            raise NeverBegun
        wait, own = self._expected_wait_seconds(waiter), self._least_hold_seconds()
        if wait is not None and wait + own > remaining:
            itself = f" and the answer {own:.1f} s or more" if own else ""
            raise RateLimited(
                f"The queue ahead takes about {wait:.1f} s{itself}, longer than this request's deadline allows.",
                code="deadline_unmeetable",
                headers={"retry-after": str(max(1, math.ceil(wait + own - remaining)))},
            )

    def _expected_wait_seconds(self, waiter: Waiter) -> float | None:
        """By the order of service: the classes above, and the turns of the tenants beside. None: not known yet."""
        line = self._lines[waiter.priority]
        own = line.turns_before(waiter.tenant) + 1
        above = sum(other.waiting for rank, other in self._lines.items() if rank.rank < waiter.priority.rank)
        floor = self._floors.get(waiter.priority, 0)
        waits = [self._wait_seconds(above + own, self._cap), self._wait_seconds(own, floor)]
        return min((wait for wait in waits if wait is not None), default=None)

    def _wait_seconds(self, requests: int, slots: int) -> float | None:
        """Until so many requests have been started on so many slots that are all in use (Little's law)."""
        if not self._holds or slots < 1:
            return None
        return requests * self._mean_hold_seconds() / slots

    def _mean_hold_seconds(self) -> float:
        """0 where nothing is known yet."""
        return sum(self._holds) / len(self._holds) if self._holds else 0.0

    def _least_hold_seconds(self) -> float:
        """The lower quartile: most requests take longer, so that a short one among long ones is not sent away."""
        if len(self._holds) < _HOLDS_TO_EXPECT_FROM:
            return 0.0
        return statistics.quantiles(self._holds, n=4, method="inclusive")[0]

    def _make_room(self, waiter: Waiter) -> None:
        """Raises ``RateLimited`` unless there is room, or less urgent ones can give it."""
        policy = self._policy
        over_count = self.waiting + 1 - policy.max_queue
        over_tokens = 0
        if policy.max_queued_prefill_tokens is not None and self.waiting:
            over_tokens = self.queued_prefill_tokens + waiter.prefill_tokens - policy.max_queued_prefill_tokens
        if over_count <= 0 and over_tokens <= 0:
            return
        displaced: list[Waiter] = []
        for priority in reversed(Priority):
            if priority.rank > waiter.priority.rank:
                for other in self._lines[priority].youngest_first():
                    if over_count <= 0 and over_tokens <= 0:
                        break
                    displaced.append(other)
                    over_count -= 1
                    over_tokens -= other.prefill_tokens
        # a request that is alone may be larger than the whole budget
        if over_count > 0 or (over_tokens > 0 and len(displaced) < self.waiting):
            raise self._full()
        for other in displaced:
            self._lines[other.priority].leave(other)
            other.refuse(self._full())

    def _full(self) -> RateLimited:
        return RateLimited(
            f"The queue is full: {self.running} requests are running and {self.waiting} wait.",
            code="queue_full",
            headers={"retry-after": str(self.retry_after_seconds())},
        )

    def _allowed(self, priority: Priority) -> bool:
        """Whether a slot is free for the class."""
        if self.running >= self._cap:
            return False
        if priority is Priority.INTERACTIVE:
            return True
        others = self.running - self._lines[Priority.INTERACTIVE].running
        return others < self._cap - int(self._cap * self._policy.interactive_reserve)

    def _start(self, waiter: Waiter) -> None:
        self._lines[waiter.priority].started(waiter, self._mean_hold_seconds())

    def _admit(self) -> None:
        while (waiter := self._next()) is not None:
            self._lines[waiter.priority].leave(waiter)
            assert waiter.slot is not None
            if waiter.slot.done():
                # given up, and not yet woken to say so
                continue
            deadline = waiter.deadline_seconds
            if deadline is not None and deadline <= self._clock():
                waiter.refuse(NeverBegun())
                continue
            self._start(waiter)
            waiter.slot.set_result(None)

    def _next(self) -> Waiter | None:
        able = [priority for priority in Priority if self._lines[priority].waiting and self._allowed(priority)]
        if not able:
            return None
        for priority in able:
            if self._lines[priority].running < self._floors.get(priority, 0):
                return self._lines[priority].next()
        self._since_promotion += 1
        if self._since_promotion >= self._policy.promote_every:
            oldest = min((self._lines[priority].oldest() for priority in able), key=lambda head: head.asked_seconds)
            if self._clock() - oldest.asked_seconds >= self._policy.promote_after_seconds:
                self._since_promotion = 0
                return oldest
        return self._lines[able[0]].next()


def _floors(cap: int, policy: QueuePolicy) -> dict[Priority, int]:
    """Slots that a class is given first."""
    shares = {Priority.STANDARD: policy.standard_floor, Priority.BATCH: policy.batch_floor}
    floors = {priority: int(cap * share) for priority, share in shares.items()}
    one_at_least = {priority: max(floor, int(shares[priority] > 0)) for priority, floor in floors.items()}
    interactive = max(1, int(cap * policy.interactive_reserve))
    return one_at_least if sum(one_at_least.values()) + interactive <= cap else floors


def _checked(cap: int) -> int:
    if cap < 1:
        raise ValueError(f"the cap must be at least 1, got {cap}")
    return cap
