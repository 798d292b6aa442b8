from __future__ import annotations

import pytest

from cache.identity import Address
from cache.observer import Loss, Operation, SilentObserver
from cache.redis_store import RedisStore
from tests.unit.cache.store_contract import HOUR, INDEX, SCOPES, StoreContract, address, answer, budget, unit

pytestmark = pytest.mark.redis


class TestRedisStore(StoreContract):
    pass


async def test_every_key_of_a_partition_has_its_hash_tag_and_a_life(kit) -> None:
    await kit.store.put(answer(address(1)), HOUR, budget())
    await kit.store.add(address(1), INDEX, unit(1), HOUR, budget())
    await kit.store.claim(address(2), "a", 10.0, budget())
    await kit.store.peek(address(1), SCOPES, budget(), index=INDEX, count_sighting_seconds=HOUR)
    keys = [key async for key in kit.raw.scan_iter()]
    assert len(keys) == 5
    tag = b"{" + address(1).partition.encode() + b"}"
    for key in keys:
        assert tag in key
        assert 0 < await kit.raw.pttl(key) <= 24 * HOUR * 1000


async def test_reading_does_not_prolong_a_life_and_a_shorter_one_does_not_cut_an_index(kit) -> None:
    await kit.store.put(answer(address(1)), HOUR, budget())
    await kit.store.add(address(1), INDEX, unit(1), HOUR, budget())
    body, index = (
        f"wattgate:{{{address(1).partition}}}:b:{address(1).exact}",
        f"wattgate:{{{address(1).partition}}}:v:{INDEX.name}",
    )
    await kit.raw.pexpire(body, 5000)
    await kit.store.fetch(address(1), budget())
    await kit.store.nearest(address(1).partition, INDEX, unit(1), 5, budget())
    assert await kit.raw.pttl(body) <= 5000
    await kit.store.add(address(2), INDEX, unit(2), 1.0, budget())
    assert await kit.raw.pttl(index) > 1000


async def test_bytes_written_without_the_secret_or_for_another_address_are_not_served(kit, server) -> None:
    losses: list[tuple[Operation, Loss]] = []

    class Counter(SilentObserver):
        def lost(self, operation: Operation, loss: Loss) -> None:
            losses.append((operation, loss))

    stranger = RedisStore(server.url, secret=b"another secret, also long enough")
    await stranger.put(answer(address(1)), HOUR, budget())
    await stranger.close()
    await kit.store.put(answer(address(2)), HOUR, budget())

    def body(at: Address) -> str:
        return f"wattgate:{{{at.partition}}}:b:{at.exact}"

    await kit.raw.copy(body(address(2)), body(address(3)))
    store = RedisStore(server.url, secret=b"a secret of the tests, long enough", observer=Counter())
    fetched = [await store.fetch(address(number), budget()) for number in (1, 2, 3)]
    await store.close()
    assert [item is not None for item in fetched] == [False, True, False]
    assert losses == 2 * [(Operation.LOOKUP, Loss.FORGED)]
