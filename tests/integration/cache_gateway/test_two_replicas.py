"""Two gateways on one Redis 8: identical requests run once between them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.unit.serving.conftest import House
from tests.unit.serving.engines.contract import until
from tests.unit.serving.fakes import HeldEngine, Steps

pytestmark = pytest.mark.redis


async def test_a_hundred_identical_requests_through_two_replicas_run_once(
    stacked: Callable[..., Awaitable[House]], redis_url: str
) -> None:
    houses = [await stacked(redis_url, engine=HeldEngine(), tier="exact") for _ in range(2)]
    for house in houses:
        house.engine.gate.clear()
    exchanges = [houses[number % 2].begin(houses[0].chat(stream=number % 4 == 0)) for number in range(100)]
    await until(lambda: sum(house.count("wattgate_cache_lookups_total") for house in houses) == 100)
    await until(lambda: any(house.engine.running for house in houses))
    for house in houses:
        house.engine.gate.set()
    replies = [await exchange.end() for exchange in exchanges]
    assert sum(len(house.engine.requests) for house in houses) == 1
    assert [reply.status for reply in replies] == [200] * 100
    verdicts = [reply.headers["x-cache"] for reply in replies]
    assert sorted(verdicts) == ["HIT-EXACT"] * 99 + ["MISS"]
    assert sum(house.count("wattgate_cache_shared_total", reason="replica") for house in houses) >= 1
    assert sum(house.count("wattgate_tokens_total", kind="output") for house in houses) == 2


async def test_a_stream_that_another_replica_runs_is_read_as_it_runs(
    stacked: Callable[..., Awaitable[House]], redis_url: str
) -> None:
    leading, following = [await stacked(redis_url, engine=HeldEngine(), tier="exact") for _ in range(2)]
    steps = Steps(leading.engine)
    leader = leading.begin(leading.chat(stream=True))
    steps.step()
    await leader.frames(1)
    follower = following.begin(following.chat(stream=True))
    assert b"Hello" in (await follower.frames(1))[0]
    steps.step()
    assert b" there" in (await follower.frames(2))[1]
    assert leading.engine.running == 1
    leader.leave()
    await leader.end()
    steps.rest()
    reply = await follower.end()
    assert reply.done
    assert reply.chunks[-1]["usage"]["wattgate"]["cache"] == "HIT-EXACT"
    assert following.engine.requests == []
    assert following.count("wattgate_cache_faults_total") == leading.count("wattgate_cache_faults_total") == 0
