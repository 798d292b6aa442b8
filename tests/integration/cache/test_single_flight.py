from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from cache.control import Outcome
from cache.embedded import EmbeddedRedis
from cache.lookup import CacheRequest
from cache.single_flight import Flight
from tests.integration.cache.conftest import RedisKit, Replica
from tests.unit.cache.fakes import answering, asking

pytestmark = pytest.mark.redis


class Engine:
    """Counts its runs; holds them until let go."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.running = asyncio.Event()
        self.go = asyncio.Event()
        self.body = answering(refusal=None)

    async def __call__(self, tenant: str) -> dict[str, Any]:
        self.runs.append(tenant)
        self.running.set()
        await self.go.wait()
        return self.body


async def serve(replica: Replica, engine: Engine, request: CacheRequest) -> dict[str, Any]:
    """The way of a request through the cache, as a gateway goes it."""
    cache = replica.cache
    lookup = await cache.lookup(request)
    if lookup.answer is not None:
        return lookup.answer.body()

    async def produce(flight: Flight) -> None:
        async with cache.turn(lookup) as turn:
            if turn.answer is not None:
                flight.publish(turn.answer.body_bytes)
                flight.finish()
                return
            body = await engine(request.tenant)
            flight.publish(orjson.dumps(body))
            flight.finish()
            await cache.store(lookup, body, variant="m@1", turn=turn)

    assert lookup.key is not None
    async with cache.flights.join(lookup.key, produce, stream=False) as seat:
        frames = [frame async for frame in seat.frames(stream=False)]
    body: dict[str, Any] = orjson.loads(frames[0])
    return body


@pytest.fixture
def replicas(kit: RedisKit, server: EmbeddedRedis, replicate: Callable[..., Replica]) -> list[Replica]:
    return [replicate(server.url) for _ in range(2)]


async def test_a_hundred_identical_requests_through_two_replicas_run_once(replicas: list[Replica]) -> None:
    engine = Engine()
    tasks = [asyncio.create_task(serve(replicas[number % 2], engine, asking())) for number in range(100)]
    await engine.running.wait()
    engine.go.set()
    answers = await asyncio.gather(*tasks)
    assert answers == 100 * [engine.body]
    assert engine.runs == ["acme"]
    assert (await replicas[1].cache.lookup(asking())).outcome is Outcome.HIT_EXACT


async def test_requests_of_two_tenants_run_twice(replicas: list[Replica]) -> None:
    engine = Engine()
    engine.go.set()
    requests = [asking(tenant=("acme", "umbrella")[number // 2 % 2]) for number in range(20)]
    await asyncio.gather(*(serve(replicas[number % 2], engine, request) for number, request in enumerate(requests)))
    assert sorted(engine.runs) == ["acme", "umbrella"]


async def test_when_the_leading_replica_goes_the_other_takes_over(replicas: list[Replica]) -> None:
    first, second = Engine(), Engine()
    leader = asyncio.create_task(serve(replicas[0], first, asking()))
    await first.running.wait()
    heir = asyncio.create_task(serve(replicas[1], second, asking()))
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    second.go.set()
    assert await heir == second.body
    assert (first.runs, second.runs) == (["acme"], ["acme"])


async def test_an_answer_that_may_not_be_stored_is_run_by_each_replica(replicas: list[Replica]) -> None:
    engine = Engine()
    engine.body = {**answering(), "choices": [{**answering()["choices"][0], "finish_reason": "length"}]}
    tasks = [asyncio.create_task(serve(replicas[number % 2], engine, asking())) for number in range(10)]
    await engine.running.wait()
    engine.go.set()
    assert await asyncio.gather(*tasks) == 10 * [engine.body]
    assert len(engine.runs) == 2
