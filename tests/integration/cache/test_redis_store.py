from __future__ import annotations

import pytest

from cache.identity import Address
from cache.observer import Loss, Operation, SilentObserver
from cache.redis_store import RedisStore
from cache.relay_store import Batch, Followed
from cache.store import Claim, Lease, LeaseState
from tests.unit.cache.store_contract import HOUR, INDEX, SCOPES, StoreContract, address, answer, budget, unit

pytestmark = pytest.mark.redis


class TestRedisStore(StoreContract):
    pass


async def test_every_key_of_a_partition_has_its_hash_tag_and_a_life(kit) -> None:
    await kit.store.put(answer(address(1)), HOUR, budget())
    await kit.store.add(address(1), INDEX, unit(1), HOUR, budget())
    lease = (await kit.store.claim(address(2), "a", 10.0, budget())).lease
    await kit.store.relay.push(lease, [Batch(1, (b"frame",))], 1, HOUR, budget())
    await kit.store.peek(address(1), SCOPES, budget(), index=INDEX, count_sighting_seconds=HOUR)
    keys = [key async for key in kit.raw.scan_iter()]
    assert len(keys) == 6
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


async def test_frames_of_another_run_or_without_the_secret_are_not_passed_on(kit, server) -> None:
    losses: list[tuple[Operation, Loss]] = []

    class Counter(SilentObserver):
        def lost(self, operation: Operation, loss: Loss) -> None:
            losses.append((operation, loss))

    leases = [(await kit.store.claim(address(number), "a", 10.0, budget())).lease for number in (1, 2)]
    for lease in leases:
        await kit.store.relay.push(lease, [Batch(1, (b"frame",))], 1, HOUR, budget())

    def run(lease: Lease) -> str:
        return f"wattgate:{{{lease.address.partition}}}:s:{lease.address.exact}:{lease.token}"

    await kit.raw.copy(run(leases[0]), run(leases[1]), replace=True)
    reader = RedisStore(server.url, secret=b"a secret of the tests, long enough", observer=Counter())
    stranger = RedisStore(server.url, secret=b"another secret, also long enough", observer=Counter())
    assert (await reader.relay.follow(leases[0], 0, budget())).batches == (Batch(1, (b"frame",)),)
    assert await reader.relay.follow(leases[1], 0, budget()) == Followed((), alive=False)
    assert await stranger.relay.follow(leases[0], 0, budget()) == Followed((), alive=False)
    await kit.raw.xadd(run(leases[0]), {b"another": b"field"}, id="2-0")
    assert await reader.relay.follow(leases[0], 1, budget()) == Followed((), alive=False)
    await reader.close()
    await stranger.close()
    assert losses == 3 * [(Operation.RELAY, Loss.FORGED)]


async def test_a_lock_of_another_hand_is_waited_for_and_not_followed(kit) -> None:
    await kit.raw.set(f"wattgate:{{{address(1).partition}}}:l:{address(1).exact}", b"another's\xff", px=60_000)
    assert await kit.store.claim(address(1), "a", 10.0, budget()) == Claim(LeaseState.HELD)


async def test_wishes_have_a_life(kit) -> None:
    await kit.store.relay.wish(Lease(address(1), 1, "replica-1"), 2.0, budget())
    (key,) = [key async for key in kit.raw.scan_iter()]
    assert 0 < await kit.raw.pttl(key) <= 2000
