from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from cache.embedded import EmbeddedRedis
from cache.identity import Address
from cache.redis_store import RedisStore

SECRET = b"a secret of the tests, long enough"


class RedisKit:
    """A store on a real server, and a client beside it that moves the server's clock by hand."""

    def __init__(self, url: str) -> None:
        self.store = RedisStore(url, secret=SECRET)
        self.raw = Redis.from_url(url)

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


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedRedis]:
    """Shared by tests that leave it whole; emptied for each."""
    with EmbeddedRedis() as redis:
        yield redis


@pytest.fixture
async def kit(server: EmbeddedRedis) -> AsyncIterator[RedisKit]:
    kit = RedisKit(server.url)
    await kit.raw.flushall()
    yield kit
    await kit.close()
