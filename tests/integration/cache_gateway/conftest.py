from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from cache.embedded import EmbeddedRedis
from serving.config import GatewayConfig
from serving.engines.settings import EngineSettings, SimulatedSettings
from serving.engines.simulated import SimulatedEngine
from serving.placement.caching import build_cache
from tests.unit.serving.conftest import House

SECRET = "a secret of the tests"


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as redis:
        yield redis


@pytest.fixture
async def redis_url(server: EmbeddedRedis) -> str:
    """Of an empty server."""
    client = Redis.from_url(server.url)
    await client.flushall()
    await client.aclose()
    return server.url


@pytest.fixture
async def stacked() -> AsyncIterator[Callable[..., Awaitable[House]]]:
    """Makes gateways with the cache that a configuration asks for, over the simulated engine unless one is given."""
    made: list[House] = []

    async def make(url: str | None, engine: Any = None, keys: dict[str, str] | None = None, **cache: Any) -> House:
        if engine is None:
            simulated = SimulatedSettings(prefill_seconds_per_token=0, step_seconds=0, step_seconds_per_sequence=0)
            settings = EngineSettings(kind="simulated", served_model_name="m", simulated=simulated)
            engine = SimulatedEngine(settings, lambda _: None)
            await engine.start()
        house = House(engine=engine, keys=keys, cap=64, queue=256, max_concurrent_requests=512)
        # The budgets are generous unless a test is about them: this machine may be busy.
        generous = {"redis_budget_seconds": 10.0, "embed_deadline_seconds": 30.0, "tenant_secret": SECRET}
        config = GatewayConfig.model_validate({"cache": generous | cache})
        built = await build_cache(config, url, house.metrics, house.notices.append)
        assert built.cache is not None
        house.cache = house.gateway.cache = built.cache
        house.gateway.shadow = built.shadow
        made.append(house)
        return house

    yield make
    for house in made:
        await house.cache.close()
