"""The connection to Redis: pooled, within each request's budget, behind a breaker, back by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cache.breaker import CircuitBreaker
from cache.observer import CacheObserver, Loss
from cache.redis_errors import TRIPPING, loss_of
from cache.store import Budget, StoreUnavailable

log = logging.getLogger(__name__)

_PROBE_SECONDS = 0.25


class RedisLink:
    """Runs pipelines. Connects when first used and again after every loss; needs no server to start.

    Raises ``StoreUnavailable`` and nothing else. While the breaker is open every call is refused at
    once, and a task of its own probes the server: no request waits for it.
    """

    def __init__(
        self,
        url: str,
        *,
        observer: CacheObserver,
        max_connections: int = 32,
        breaker: CircuitBreaker | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            # The budget bounds the wait for a connection too; a second try would spend it twice.
            timeout=None,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
            protocol=3,
        )
        self._redis: Redis = Redis(connection_pool=self._pool)
        self.breaker = breaker or CircuitBreaker(monotonic=monotonic, changed=observer.breaker)
        self._probe: asyncio.Task[None] | None = None

    def pipeline(self) -> Pipeline:
        return self._redis.pipeline(transaction=False)

    async def execute(self, pipe: Pipeline, budget: Budget) -> list[Any]:
        """Replies in order, error replies among them as exceptions (see ``ok``)."""
        if self.breaker.open:
            self._probe_if_due()
            raise StoreUnavailable(Loss.BREAKER_OPEN)
        if budget.remaining_seconds <= 0:
            raise StoreUnavailable(Loss.BUDGET_SPENT)
        try:
            with budget:
                async with asyncio.timeout(budget.remaining_seconds):
                    replies: list[Any] = await pipe.execute(raise_on_error=False)
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
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._redis.aclose()
        await self._pool.disconnect()

    def _probe_if_due(self) -> None:
        if self._probe is None and self.breaker.probe_due():
            self._probe = asyncio.get_running_loop().create_task(self._run_probe())
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
