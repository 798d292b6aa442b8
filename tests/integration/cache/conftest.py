from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from cache.breaker import CircuitBreaker
from cache.embedded import EmbeddedRedis
from cache.identity import Address
from cache.redis_store import RedisStore
from cache.settings import CacheSettings
from cache.tiers import ResponseCache
from tests.unit.cache.fakes import SECRET, ManualClock, Recorder, Threshold, Words


class RedisKit:
    """A store on a real server, and a client beside it that ends lives by hand."""

    def __init__(self, url: str) -> None:
        self.store = RedisStore(url, secret=SECRET)
        self.raw = Redis.from_url(url, socket_timeout=60.0)

    async def _delete(self, pattern: str) -> None:
        keys = [key async for key in self.raw.scan_iter(match=pattern)]
        assert keys, pattern
        await self.raw.delete(*keys)

    async def expire(self, address: Address) -> None:
        await self._delete(f"*{address.partition}*:b:{address.exact}")

    async def expire_lease(self, address: Address) -> None:
        await self._delete(f"*{address.partition}*:l:{address.exact}")

    async def close(self) -> None:
        await self.raw.aclose()
        await self.store.close()


class Replica:
    """A whole cache on a server that may fail; the breaker's clock is moved by hand."""

    def __init__(self, url: str, *, redis_budget_seconds: float = 5.0, **settings: Any) -> None:
        """The budget is generous unless a test is about it: this machine may be busy."""
        self.clock, self.observer = ManualClock(), Recorder()
        self.embedder, self.judge = Words(), Threshold()
        breaker = CircuitBreaker(monotonic=self.clock, changed=self.observer.breaker)
        self.store = RedisStore(url, secret=SECRET, observer=self.observer, breaker=breaker)
        parts: dict[str, Any] = {
            "secret": SECRET,
            "store": self.store,
            "embedder": self.embedder,
            "judge": self.judge,
            "observer": self.observer,
            "settings": CacheSettings(redis_budget_seconds=redis_budget_seconds, **settings),
        }
        self.cache = ResponseCache(**parts)

    async def probe(self) -> None:
        """Let the breaker's time pass, and its probe end."""
        self.clock.seconds += 60.0
        self.store._link._probe_if_due()
        probe = self.store._link._probe
        if probe is not None:
            await asyncio.wait([probe])

    async def recover(self) -> None:
        """Probe until it is found well; a busy machine may need more than one."""
        for _ in range(20):
            if not self.store._link.breaker.open:
                return
            await self.probe()
        raise AssertionError("the server was not found again")

    def losses(self) -> set[tuple[str, str]]:
        return {(operation.value, loss.value) for operation, loss in self.observer.losses}


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedRedis]:
    """Shared by tests that leave it whole; emptied for each."""
    with EmbeddedRedis() as redis:
        yield redis


@pytest.fixture
def own_server() -> Iterator[EmbeddedRedis]:
    """For tests that break it."""
    with EmbeddedRedis() as redis:
        yield redis


@pytest.fixture
async def replicate() -> AsyncIterator[Callable[..., Replica]]:
    """Makes replicas, and closes them."""
    made: list[Replica] = []

    def make(url: str, **settings: Any) -> Replica:
        made.append(Replica(url, **settings))
        return made[-1]

    yield make
    for replica in made:
        await replica.cache.close()


@pytest.fixture
async def kit(server: EmbeddedRedis) -> AsyncIterator[RedisKit]:
    kit = RedisKit(server.url)
    await kit.raw.flushall()
    yield kit
    await kit.close()
