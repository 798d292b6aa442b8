"""The response store in memory: for tests, planning, and one process without Redis."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.embedding import Vector
from cache.entry import CachedAnswer
from cache.identity import Address, Epochs, Scopes
from cache.relay_store import MemoryRelay
from cache.store import Budget, Claim, Found, IndexSpec, Lease, LeaseState, Peek, Put, StoreStats, checked


@dataclass(slots=True)
class _Held:
    owner: str
    token: int
    until_seconds: float
    rank: int
    declined: bool = False


@dataclass(slots=True)
class _Index:
    until_seconds: float = 0.0
    vectors: dict[str, Vector] = field(default_factory=dict)


class MemoryStore:
    """Same contract as Redis. ``clock`` gives seconds, for times to live; at ``max_entries`` the oldest goes."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_entries: int = 100_000) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._bodies: OrderedDict[Address, tuple[CachedAnswer | None, float]] = OrderedDict()
        self._indexes: OrderedDict[tuple[str, str], _Index] = OrderedDict()
        self._sightings: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._epochs: dict[str, int] = {}
        self._leases: OrderedDict[Address, _Held] = OrderedDict()
        self._tokens: OrderedDict[Address, int] = OrderedDict()
        self.relay = MemoryRelay(self._holds, self._hold, clock=clock)

    async def peek(
        self,
        address: Address,
        scopes: Scopes,
        budget: Budget,
        *,
        index: IndexSpec | None = None,
        count_sighting_seconds: float | None = None,
    ) -> Peek:
        answer, tombstone = self._body(address)
        sightings = 0
        if count_sighting_seconds is not None:
            sightings = self._sight(address.partition, count_sighting_seconds)
        kept = self._index(address.partition, index) if index else None
        return Peek(
            epochs=await self.epochs(scopes, budget),
            answer=answer,
            tombstone=tombstone,
            indexed=len(kept.vectors) if kept else 0,
            sightings=sightings,
        )

    async def epochs(self, scopes: Scopes, budget: Budget) -> Epochs:
        return Epochs(*(self._epochs.get(name, 0) for name in (*scopes.fields, "local")))

    async def advance(self, field: str, budget: Budget) -> int:
        self._epochs[field] = self._epochs.get(field, 0) + 1
        return self._epochs[field]

    async def put(self, answer: CachedAnswer, ttl_seconds: float, budget: Budget, *, token: int | None = None) -> Put:
        if self._body(answer.address)[1]:
            return Put.TOMBSTONE
        if token is not None and token < self._tokens.get(answer.address, 0):
            return Put.FENCED
        self._write(answer.address, answer, ttl_seconds)
        return Put.STORED

    async def add(self, address: Address, index: IndexSpec, vector: Vector, ttl_seconds: float, budget: Budget) -> int:
        unit = checked(vector, index)
        kept = self._index(address.partition, index)
        if kept is None:
            kept = self._indexes[address.partition, index.name] = _Index()
            _bound(self._indexes, self._max_entries)
        kept.vectors[address.exact] = unit
        kept.until_seconds = max(kept.until_seconds, self._clock() + ttl_seconds)
        evicted = 0
        while len(kept.vectors) > index.capacity:
            candidates = [exact for exact in kept.vectors if exact != address.exact]
            victim = min(candidates, key=lambda exact: self._remaining(Address(address.partition, exact)))
            del kept.vectors[victim]
            evicted += 1
        return evicted

    async def nearest(
        self, partition: str, index: IndexSpec, vector: Vector, count: int, budget: Budget
    ) -> tuple[list[Found], int]:
        unit = checked(vector, index)
        kept = self._index(partition, index)
        if kept is None or not kept.vectors:
            return [], 0
        names = list(kept.vectors)
        cosines = np.stack([kept.vectors[name] for name in names]) @ unit
        found: list[Found] = []
        orphans = 0
        for position in np.argsort(-cosines, kind="stable")[:count]:
            answer, _ = self._body(Address(partition, names[position]))
            if answer is None:
                del kept.vectors[names[position]]
                orphans += 1
            else:
                found.append(Found(answer, float(cosines[position])))
        return found, orphans

    async def fetch(self, address: Address, budget: Budget) -> CachedAnswer | None:
        return self._body(address)[0]

    async def remove(self, address: Address, index: IndexSpec | None, budget: Budget) -> bool:
        self._unindex(address, index)
        answer, tombstone = self._body(address)
        if answer is not None and not tombstone:
            del self._bodies[address]
        return answer is not None

    async def entomb(self, address: Address, index: IndexSpec | None, ttl_seconds: float, budget: Budget) -> None:
        self._unindex(address, index)
        self._write(address, None, ttl_seconds)

    async def claim(
        self, address: Address, owner: str, lease_seconds: float, budget: Budget, *, rank: int = 0
    ) -> Claim:
        answer, _ = self._body(address)
        if answer is not None:
            return Claim(LeaseState.ANSWERED, answer=answer)
        held = self._lease(address)
        if held is not None and held.declined:
            return Claim(LeaseState.DECLINED)
        if held is not None and held.rank <= rank:
            return Claim(LeaseState.HELD, holder=Lease(address, held.token, held.owner))
        token = self._tokens[address] = self._tokens.pop(address, 0) + 1
        _bound(self._tokens, self._max_entries + 1000)
        self._leases[address] = _Held(owner, token, self._clock() + lease_seconds, rank)
        _bound(self._leases, self._max_entries + 1000)
        return Claim(LeaseState.GRANTED, lease=Lease(address, token, owner))

    async def renew(self, lease: Lease, lease_seconds: float, budget: Budget, *, rank: int = 0) -> bool:
        if not self._take_again(lease, lease_seconds):
            return False
        held = self._leases[lease.address]
        held.until_seconds, held.rank = self._clock() + lease_seconds, rank
        return True

    async def release(self, lease: Lease, budget: Budget, *, declined_seconds: float | None = None) -> None:
        held = self._lease(lease.address)
        if held is None or not self._holds(lease):
            return
        if declined_seconds is None:
            del self._leases[lease.address]
        else:
            held.declined, held.until_seconds = True, self._clock() + declined_seconds

    async def stats(self, budget: Budget) -> StoreStats:
        return StoreStats(server="memory", keys=len(self._bodies), bytes_used=None, bytes_limit=None)

    async def close(self) -> None:
        self._bodies.clear()
        self._indexes.clear()
        self.relay.clear()

    def _body(self, address: Address) -> tuple[CachedAnswer | None, bool]:
        """(answer, whether a tombstone stands there)."""
        kept = self._bodies.get(address)
        if kept is None:
            return None, False
        answer, until_seconds = kept
        if self._clock() >= until_seconds:
            del self._bodies[address]
            return None, False
        return answer, answer is None

    def _write(self, address: Address, answer: CachedAnswer | None, ttl_seconds: float) -> None:
        self._bodies.pop(address, None)
        self._bodies[address] = (answer, self._clock() + ttl_seconds)
        _bound(self._bodies, self._max_entries)

    def _remaining(self, address: Address) -> float:
        kept = self._bodies.get(address)
        return -1.0 if kept is None or kept[0] is None else kept[1] - self._clock()

    def _index(self, partition: str, index: IndexSpec) -> _Index | None:
        kept = self._indexes.get((partition, index.name))
        if kept is not None and self._clock() >= kept.until_seconds:
            del self._indexes[partition, index.name]
            return None
        return kept

    def _unindex(self, address: Address, index: IndexSpec | None) -> None:
        kept = self._index(address.partition, index) if index else None
        if kept is not None:
            kept.vectors.pop(address.exact, None)

    def _sight(self, partition: str, ttl_seconds: float) -> int:
        count, until_seconds = self._sightings.pop(partition, (0, 0.0))
        if self._clock() >= until_seconds:
            count = 0
        self._sightings[partition] = (count + 1, self._clock() + ttl_seconds)
        _bound(self._sightings, self._max_entries)
        return count + 1

    def _holds(self, lease: Lease) -> bool:
        held = self._lease(lease.address)
        return held is not None and not held.declined and held.token == lease.token

    def _hold(self, lease: Lease, life_seconds: float) -> bool:
        if not self._take_again(lease, life_seconds):
            return False
        self._leases[lease.address].rank = 0
        return True

    def _take_again(self, lease: Lease, life_seconds: float) -> bool:
        """Whether it is its owner's; one that is gone and that nobody took is from now on."""
        if self._lease(lease.address) is None:
            self._leases[lease.address] = _Held(lease.owner, lease.token, self._clock() + life_seconds, rank=0)
            _bound(self._leases, self._max_entries + 1000)
        return self._holds(lease)

    def _lease(self, address: Address) -> _Held | None:
        held = self._leases.get(address)
        if held is not None and self._clock() >= held.until_seconds:
            del self._leases[address]
            return None
        return held


def _bound(kept: OrderedDict[Any, Any], most: int) -> None:
    """The oldest go."""
    while len(kept) > most:
        kept.popitem(last=False)
