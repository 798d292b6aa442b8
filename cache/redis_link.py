"""The connection to Redis: batched, within each request's budget, behind a breaker, back by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from cache.breaker import CircuitBreaker
from cache.observer import CacheObserver, Loss
from cache.redis_errors import TRIPPING, loss_of
from cache.store import Budget, StoreUnavailable

log = logging.getLogger(__name__)

Command = tuple[bytes | str | int | float, ...]

_PROBE_SECONDS = 0.25
_BATCH_CALLS = 128


@dataclass(slots=True, eq=False)
class _Call:
    commands: Sequence[Command]
    replies: asyncio.Future[list[Any]]
    deadline_seconds: float
    """On the loop's clock."""


class RedisLink:
    """Runs commands. Connects when first used and again after every loss; needs no server to start.

    Calls that wait at the same moment share a round trip: a burst of a hundred lookups needs a few
    connections and not a hundred. Raises ``StoreUnavailable`` and nothing else. While the breaker is
    open every call is refused at once, and a task of its own probes the server: no request waits for it.
    """

    def __init__(
        self,
        url: str,
        *,
        observer: CacheObserver,
        lanes: int = 4,
        breaker: CircuitBreaker | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=lanes + 1,
            # The budget bounds the wait for a connection too.
            timeout=None,
            # A connection that the server closed while idle is noticed when it is used: once more, on a fresh one.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            decode_responses=False,
            protocol=3,
        )
        self._redis: Redis = Redis(connection_pool=self._pool)
        self.breaker = breaker or CircuitBreaker(monotonic=monotonic, changed=observer.breaker)
        self._probe: asyncio.Task[None] | None = None
        self._lane_count = lanes
        self._lanes: set[asyncio.Task[None]] = set()
        self._waiting: deque[_Call] = deque()

    async def execute(self, commands: Sequence[Command], budget: Budget) -> list[Any]:
        """Replies in order, error replies among them as exceptions (see ``ok``)."""
        if self.breaker.open:
            self._probe_if_due()
            raise StoreUnavailable(Loss.BREAKER_OPEN)
        if budget.remaining_seconds <= 0:
            raise StoreUnavailable(Loss.BUDGET_SPENT)
        loop = asyncio.get_running_loop()
        call = _Call(commands, loop.create_future(), loop.time() + budget.remaining_seconds)
        self._waiting.append(call)
        # A lane that has just sent its last batch is still in the set when who waited for it calls again.
        if sum(not lane.done() for lane in self._lanes) < self._lane_count:
            lane = loop.create_task(self._run_lane(), name="redis-lane")
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        try:
            with budget:
                async with asyncio.timeout_at(call.deadline_seconds):
                    replies = await call.replies
        except (RedisError, OSError, TimeoutError) as error:
            loss = loss_of(error)
            if loss in TRIPPING:
                self.breaker.failed()
            raise StoreUnavailable(loss) from error
        if any(isinstance(reply, Exception) and loss_of(reply) in TRIPPING for reply in replies):
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        return replies

    async def close(self) -> None:
        tasks = [*self._lanes, *([self._probe] if self._probe is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for call in self._waiting:
            call.replies.cancel()
        await self._redis.aclose()
        await self._pool.disconnect()

    async def _run_lane(self) -> None:
        """Sends what waits, all of it in one pipeline, until nothing waits."""
        while self._waiting:
            batch: list[_Call] = []
            while self._waiting and len(batch) < _BATCH_CALLS:
                call = self._waiting.popleft()
                # Whoever has given up meanwhile is not asked for.
                if not call.replies.done():
                    batch.append(call)
            if batch:
                await self._send(batch)

    async def _send(self, batch: list[_Call]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for call in batch:
            for command in call.commands:
                pipe.execute_command(*command)
        try:
            # A connection whose replies nobody awaits any more is closed by redis-py, never used again.
            async with asyncio.timeout_at(max(call.deadline_seconds for call in batch)):
                replies = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as error:
            for call in batch:
                if not call.replies.done():
                    call.replies.set_exception(error)
        except BaseException:
            for call in batch:
                call.replies.cancel()
            raise
        else:
            position = 0
            for call in batch:
                if not call.replies.done():
                    call.replies.set_result(replies[position : position + len(call.commands)])
                position += len(call.commands)

    def _probe_if_due(self) -> None:
        if self._probe is None and self.breaker.probe_due():
            self._probe = asyncio.get_running_loop().create_task(self._run_probe(), name="redis-probe")
            self._probe.add_done_callback(self._probe_done)

    async def _run_probe(self) -> None:
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError):
            self.breaker.failed(probe=True)
        else:
            self.breaker.succeeded()

    def _probe_done(self, task: asyncio.Task[None]) -> None:
        self._probe = None
        if not task.cancelled() and task.exception() is not None:
            log.error("probing the response store failed", exc_info=task.exception())


def ok(reply: Any) -> Any:
    """The reply; raises ``StoreUnavailable`` where it is an error."""
    if isinstance(reply, Exception):
        raise StoreUnavailable(loss_of(reply)) from reply
    return reply
