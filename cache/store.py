"""The response store seam: bodies, vector indexes, epochs and leases, shared by all replicas.

Redis 8 in service, in memory for tests and for a single process; one contract suite for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cache.embedding import Vector
from cache.entry import CachedAnswer
from cache.identity import Address, Epochs, Scopes
from cache.observer import Loss

if TYPE_CHECKING:
    from cache.relay_store import RelayStore


class StoreUnavailable(Exception):
    """The store could not do it, now. Never leaves the cache."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.value)
        self.loss = loss


class Budget:
    """Seconds that one request may spend on the store, all its calls together."""

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.remaining_seconds = seconds
        self._monotonic = monotonic
        self._started = 0.0

    def __enter__(self) -> Budget:
        self._started = self._monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.remaining_seconds -= self._monotonic() - self._started


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """A vector index within a partition: one per embedder and judge version."""

    name: str
    """Short; letters and digits."""
    dimension: int
    capacity: int
    """Elements at most. Beyond it, the one nearest its expiry among eight drawn at random goes."""


@dataclass(frozen=True, slots=True)
class Peek:
    """What one round trip tells about an address."""

    epochs: Epochs
    answer: CachedAnswer | None = None
    tombstone: bool = False
    indexed: int = 0
    """Elements of the vector index of the partition."""
    sightings: int = 0
    """How often the partition was asked for, this time included; 0 where it was not counted."""


@dataclass(frozen=True, slots=True)
class Found:
    answer: CachedAnswer
    similarity: float
    """Cosine, FP32."""


class Put(StrEnum):
    STORED = "stored"
    TOMBSTONE = "tombstone"
    FENCED = "fenced"
    """A later leader has taken over: this answer comes too late."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to compute an answer. ``token`` grows with each grant of the same address."""

    address: Address
    token: int
    owner: str
    """Of the turn that holds it: its replica, a hyphen, a number."""

    @property
    def replica(self) -> str:
        return self.owner.rpartition("-")[0]


class LeaseState(StrEnum):
    GRANTED = "granted"
    HELD = "held"
    """Another computes it."""
    DECLINED = "declined"
    """The leader finished and its answer may not be stored: everyone runs for himself."""
    ANSWERED = "answered"
    """There is a body already."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What asking for a lease gave: a lease where granted, a body where answered, whose it is where held."""

    state: LeaseState
    lease: Lease | None = None
    answer: CachedAnswer | None = None
    holder: Lease | None = None


@dataclass(frozen=True, slots=True)
class StoreStats:
    """For an operator; None where the store does not tell."""

    server: str
    """Name and version."""
    keys: int
    """Everything it holds: bodies, indexes, counters, leases; on a shared server also what others keep there."""
    bytes_used: int | None
    bytes_limit: int | None
    """None: no limit."""


class ResponseStore(Protocol):
    """Every method spends from ``budget`` and raises ``StoreUnavailable``, nothing else."""

    @property
    def relay(self) -> RelayStore:
        """Frames of the runs that its leases are for."""

    async def peek(
        self,
        address: Address,
        scopes: Scopes,
        budget: Budget,
        *,
        index: IndexSpec | None = None,
        count_sighting_seconds: float | None = None,
    ) -> Peek:
        """Epochs and body in one round trip; the size of ``index`` and, where a time to live is given, a sighting."""

    async def epochs(self, scopes: Scopes, budget: Budget) -> Epochs: ...

    async def advance(self, field: str, budget: Budget) -> int:
        """Increment one epoch, by the name that ``Scopes.fields`` gives it or ``local``."""

    async def put(self, answer: CachedAnswer, ttl_seconds: float, budget: Budget, *, token: int | None = None) -> Put:
        """Write a body with its absolute time to live. ``token``: refused if a later lease was granted."""

    async def add(self, address: Address, index: IndexSpec, vector: Vector, ttl_seconds: float, budget: Budget) -> int:
        """Index an entry whose body is written; returns how many others were evicted.

        Raises:
            ValueError: the vector is not finite, is zero, or has another dimension.
        """

    async def nearest(
        self, partition: str, index: IndexSpec, vector: Vector, count: int, budget: Budget
    ) -> tuple[list[Found], int]:
        """At most ``count`` live entries, most similar first, and how many orphans were swept.

        Raises:
            ValueError: as ``add``.
        """

    async def fetch(self, address: Address, budget: Budget) -> CachedAnswer | None: ...

    async def remove(self, address: Address, index: IndexSpec | None, budget: Budget) -> bool:
        """Index first, then body. True if there was a body."""

    async def entomb(self, address: Address, index: IndexSpec | None, ttl_seconds: float, budget: Budget) -> None:
        """Remove, and refuse what is put there for a while."""

    async def claim(
        self, address: Address, owner: str, lease_seconds: float, budget: Budget, *, rank: int = 0
    ) -> Claim:
        """The body if there is one, else the lease if it is free; one step, so no answer is computed twice.

        ``rank`` 0 is the most urgent; a lease of a greater rank than it is taken over.
        """

    async def renew(self, lease: Lease, lease_seconds: float, budget: Budget, *, rank: int = 0) -> bool:
        """False where it is no longer one's own. ``rank``: of the holder from here on."""

    async def release(self, lease: Lease, budget: Budget, *, declined_seconds: float | None = None) -> None:
        """Give up a lease that is still one's own; declined for a while where no body will come."""

    async def stats(self, budget: Budget) -> StoreStats: ...

    async def close(self) -> None: ...


def checked(vector: Vector, index: IndexSpec) -> Vector:
    """Unit-length FP32 copy. Raises ValueError: Redis takes NaN and zero vectors silently."""
    flat = np.ascontiguousarray(vector, dtype=np.float32).reshape(-1)
    if flat.shape != (index.dimension,):
        raise ValueError(f"vector of {flat.shape[0]} dimensions for an index of {index.dimension}")
    norm = float(np.linalg.norm(flat))
    if not np.isfinite(norm) or norm == 0.0:
        raise ValueError("vector is zero or not finite")
    unit: Vector = (flat / np.float32(norm)).astype(np.float32)
    return unit


def cosine_from_redis(score: float) -> float:
    """VSIM scores are (1 + cosine) / 2 (Redis command reference, VSIM)."""
    return 2.0 * score - 1.0
