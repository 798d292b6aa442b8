"""Labels in a real Redis: replicas see each other's, in one order, and so does who comes later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from cache.embedded import EmbeddedRedis
from cache.evidence import VerifiedLabel
from cache.shared_labels import SharedLabels, versions
from cache.store import StoreUnavailable


@pytest.fixture(scope="module")
def redis() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
async def pair(
    redis: EmbeddedRedis, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[SharedLabels, SharedLabels]]:
    version = request.node.name
    one, other = SharedLabels(redis.url, version=version), SharedLabels(redis.url, version=version)
    yield one, other
    await one.close()
    await other.close()


RIGHT, WRONG = VerifiedLabel("served", 0.9, True), VerifiedLabel("served", 0.8, False)


async def test_replicas_read_the_same_labels_in_the_same_order(pair: tuple[SharedLabels, SharedLabels]) -> None:
    one, other = pair
    assert await one.exchange(RIGHT) == [RIGHT]
    assert await other.exchange(WRONG) == [RIGHT, WRONG]
    assert await one.exchange() == [WRONG]
    assert await other.exchange() == []


async def test_who_comes_later_reads_everything(pair: tuple[SharedLabels, SharedLabels]) -> None:
    one, other = pair
    sent = [VerifiedLabel("refused", number / 2500, number % 3 > 0) for number in range(2500)]
    for label in sent:
        await one.exchange(label)
    assert await other.exchange() == sent


async def test_every_kind_survives(pair: tuple[SharedLabels, SharedLabels]) -> None:
    one, other = pair
    sent = [VerifiedLabel("same", 0.0, False), VerifiedLabel("different", 0.0, True), RIGHT]
    for label in sent:
        await one.exchange(label)
    assert await other.exchange() == sent


async def test_another_judge_reads_nothing_of_it(redis: EmbeddedRedis, pair: tuple[SharedLabels, SharedLabels]) -> None:
    await pair[0].exchange(RIGHT)
    stranger = SharedLabels(redis.url, version="another judge")
    assert await stranger.exchange() == []
    await stranger.close()


async def test_the_judges_that_labels_are_held_of_are_named(
    redis: EmbeddedRedis, pair: tuple[SharedLabels, SharedLabels]
) -> None:
    await pair[0].exchange(RIGHT)
    named = await versions(redis.url)
    assert "test_the_judges_that_labels_are_held_of_are_named" in named
    assert "another judge" not in named


async def test_without_a_server_it_says_so() -> None:
    nowhere = SharedLabels("redis://127.0.0.1:1/0", version="v")
    with pytest.raises(StoreUnavailable):
        await nowhere.exchange(RIGHT)
    await nowhere.close()
