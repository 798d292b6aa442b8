"""The live concurrency cap of one engine, with a bounded first-come queue before it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serving.errors import DeadlineExceeded, RateLimited

_DRAIN_MEMORY = 32
"""Completions that the drain rate is taken over."""


class ConcurrencyCap:
    """Permits for the engine: never more than ``cap`` out at once, waiters served in order.

    Counting and checking are one step without an await between, so that the capacity cannot be exceeded.
    """

    def __init__(self, cap: int, max_queue: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._cap = cap
        self._max_queue = max_queue
        self._clock = clock
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._completions: deque[float] = deque(maxlen=_DRAIN_MEMORY)

    @property
    def cap(self) -> int:
        return self._cap

    @property
    def running(self) -> int:
        return self._running

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def resize(self, cap: int, max_queue: int | None = None) -> None:
        """Change the cap now. Lowering it lets the running ones finish."""
        if cap < 1:
            raise ValueError(f"the cap must be at least 1, got {cap}")
        self._cap = cap
        if max_queue is not None:
            self._max_queue = max_queue
        self._admit()

    def retry_after_seconds(self) -> int:
        """Queued work over the drain rate of the last completions; 1 where nothing is known yet."""
        if len(self._completions) < 2:
            return 1
        span = self._completions[-1] - self._completions[0]
        if span <= 0:
            return 1
        return max(1, math.ceil((len(self._waiting) + 1) * span / (len(self._completions) - 1)))

    @asynccontextmanager
    async def permit(self, deadline_seconds: float | None = None) -> AsyncIterator[float]:
        """Hold a slot; yields the seconds waited for it. ``deadline_seconds`` is a time of the clock.

        Raises:
            RateLimited: the queue is full; ``retry-after`` is computed.
            DeadlineExceeded: no slot before the deadline.
        """
        asked = self._clock()
        if self._running < self._cap and not self._waiting:
            self._running += 1
        else:
            await self._queue(deadline_seconds)
        try:
            yield self._clock() - asked
        finally:
            self._running -= 1
            self._completions.append(self._clock())
            self._admit()

    async def _queue(self, deadline_seconds: float | None) -> None:
        if len(self._waiting) >= self._max_queue:
            raise RateLimited(
                f"The queue is full: {self._running} requests are running and {len(self._waiting)} wait.",
                code="queue_full",
                headers={"retry-after": str(self.retry_after_seconds())},
            )
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        timeout = None if deadline_seconds is None else max(0.0, deadline_seconds - self._clock())
        try:
            async with asyncio.timeout(timeout):
                await slot
        except TimeoutError:
            self._leave(slot)
            raise DeadlineExceeded("The deadline passed while the request waited for the engine.") from None
        except BaseException:
            self._leave(slot)
            raise

    def _leave(self, slot: asyncio.Future[None]) -> None:
        if slot.done() and not slot.cancelled():
            # admitted in the same moment as it gave up: pass the slot on
            self._running -= 1
            self._admit()
        elif slot in self._waiting:
            self._waiting.remove(slot)

    def _admit(self) -> None:
        while self._waiting and self._running < self._cap:
            slot = self._waiting.popleft()
            if not slot.done():
                self._running += 1
                slot.set_result(None)
