"""Paraphrases through the whole gateway: real encoder, shipped calibration, Redis 8."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.unit.serving.conftest import House

pytestmark = pytest.mark.redis

Stacked = Callable[..., Awaitable[House]]


async def test_a_paraphrase_is_served_and_says_so(stacked: Stacked, redis_url: str) -> None:
    house = await stacked(redis_url, tier="semantic")
    first = await house.send(house.chat("How do I reset my password?"))
    assert first.headers["x-cache"] == "MISS"
    second = await house.send(house.chat("How can I reset my password?"))
    assert second.headers["x-cache"] == "HIT-SEMANTIC"
    assert second.json["choices"] == first.json["choices"]
    assert second.json["usage"]["wattgate"]["cache"] == "HIT-SEMANTIC"
    assert second.headers["x-cache-id"] == first.headers["x-cache-id"]
    # how near it was is for authorised callers
    assert "x-cache-similarity" not in second.headers
    assert house.count("wattgate_cache_lookups_total", outcome="HIT-SEMANTIC", tier="semantic") == 1
    assert house.count("wattgate_requests_total", cache="HIT-SEMANTIC", status="200") == 1
    assert house.count("wattgate_tokens_total", kind="avoided") > 0


async def test_another_number_is_refused_and_the_guard_named(stacked: Stacked, redis_url: str) -> None:
    house = await stacked(redis_url, tier="semantic")
    await house.send(house.chat("How long do I boil 3 eggs?"))
    reply = await house.send(house.chat("How long do I boil 4 eggs?"))
    assert reply.headers["x-cache"] == "MISS"
    assert house.count("wattgate_cache_judgements_total", why="guard", guard="numbers") == 1
    assert house.count("wattgate_cache_lookups_total", outcome="HIT-SEMANTIC") == 0


async def test_a_paraphrase_is_served_as_a_stream_too(stacked: Stacked, redis_url: str) -> None:
    house = await stacked(redis_url, tier="semantic")
    first = await house.send(house.chat("How do I reset my password?"))
    second = await house.send(house.chat("How can I reset my password?", stream=True))
    assert second.headers["x-cache"] == "HIT-SEMANTIC"
    assert second.done
    said = "".join(choice["delta"].get("content") or "" for each in second.chunks for choice in each["choices"])
    assert said == first.json["choices"][0]["message"]["content"]


async def test_tenants_see_nothing_of_each_other(stacked: Stacked, redis_url: str) -> None:
    house = await stacked(redis_url, tier="semantic", keys={"a": "key-a", "b": "key-b"})
    mine = {"authorization": "Bearer key-a"}
    theirs = {"authorization": "Bearer key-b"}
    await house.send(house.chat("How do I reset my password?"), **mine)
    paraphrase = house.chat("How can I reset my password?")
    assert (await house.send(paraphrase, **theirs)).headers["x-cache"] == "MISS"
    assert (await house.send(paraphrase, **mine)).headers["x-cache"] == "HIT-SEMANTIC"


@pytest.mark.parametrize("broken", [{"embedder": "no-such-folder"}, {"calibration": "no-such-file.json"}])
async def test_it_starts_without_an_embedder_or_calibration_and_tells(
    stacked: Stacked, redis_url: str, broken: dict[str, str]
) -> None:
    house = await stacked(redis_url, tier="semantic", **broken)
    assert house.count("wattgate_cache_faults_total", operation="semantic", fault="not_loaded") == 1
    assert any("without the semantic cache" in line for line in house.notices)
    await house.send(house.chat("How do I reset my password?"))
    assert (await house.send(house.chat("How do I reset my password?"))).headers["x-cache"] == "HIT-EXACT"
    assert (await house.send(house.chat("How can I reset my password?"))).headers["x-cache"] == "MISS"


async def test_a_threshold_that_nothing_exceeds_serves_nothing(stacked: Stacked, redis_url: str) -> None:
    house = await stacked(redis_url, tier="semantic", policy="threshold", score_threshold=1.0)
    await house.send(house.chat("How do I reset my password?"))
    assert (await house.send(house.chat("How can I reset my password?"))).headers["x-cache"] == "MISS"
    assert house.count("wattgate_cache_judgements_total", why="score") == 1
