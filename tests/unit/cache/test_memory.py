from __future__ import annotations

import pytest

from cache.identity import Address
from cache.memory import MemoryStore
from tests.unit.cache.store_contract import HOUR, INDEX, SCOPES, StoreContract, address, answer, budget, unit


class MemoryKit:
    def __init__(self) -> None:
        self.now_seconds = 0.0
        self.store = MemoryStore(clock=lambda: self.now_seconds)

    async def expire(self, address: Address) -> None:
        kept, _ = self.store._bodies[address]
        self.store._bodies[address] = (kept, self.now_seconds)

    async def expire_lease(self, address: Address) -> None:
        self.now_seconds += 10.0


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def kit(self) -> MemoryKit:
        return MemoryKit()


async def test_the_oldest_body_goes_when_the_store_is_full() -> None:
    store = MemoryStore(max_entries=2)
    for number in (1, 2, 3):
        await store.put(answer(address(number)), HOUR, budget())
    kept = [await store.fetch(address(number), budget()) for number in (1, 2, 3)]
    assert [answer is not None for answer in kept] == [False, True, True]


async def test_lives_are_absolute() -> None:
    kit = MemoryKit()
    await kit.store.put(answer(address(1)), 10.0, budget())
    kit.now_seconds = 9.0
    assert await kit.store.fetch(address(1), budget()) is not None
    kit.now_seconds = 10.0
    assert await kit.store.fetch(address(1), budget()) is None


async def test_nothing_in_it_grows_without_bound() -> None:
    store = MemoryStore(max_entries=2)
    for number in range(5000):
        at = address(1, partition=number)
        await store.claim(at, "a", HOUR, budget())
        await store.put(answer(at), HOUR, budget())
        await store.add(at, INDEX, unit(1), HOUR, budget())
        await store.peek(at, SCOPES, budget(), index=INDEX, count_sighting_seconds=HOUR)
    sizes = {name: len(kept) for name, kept in vars(store).items() if hasattr(kept, "__len__")}
    assert max(sizes.values()) <= 1002, sizes
