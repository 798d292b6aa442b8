"""What the gateway hands to the cache and gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cache.control import CacheControl, Outcome, response_headers
from cache.embedding import Vector
from cache.entry import CachedAnswer
from cache.identity import Address, Identity
from cache.judgement import Neighbour
from cache.store import Budget


@dataclass(frozen=True, slots=True)
class CacheRequest:
    """One validated request. ``payload`` is the OpenAI body; it is read, never changed."""

    tenant: str
    path: str
    payload: Mapping[str, Any]
    model: str
    """Resolved."""
    variants: tuple[str, ...]
    """Variants that may answer, each with its revision (adapters too), any order."""
    now: float
    """Unix time, seconds."""
    cache_control: CacheControl = field(default_factory=CacheControl)


@dataclass(slots=True)
class Lookup:
    """The result of a lookup, and what ``ResponseCache.store`` needs afterwards."""

    request: CacheRequest
    outcome: Outcome
    why: str
    """A bounded name: what served, or why nothing did."""
    answer: CachedAnswer | None = None
    tier: str = "none"
    """``local``, ``exact``, ``semantic`` or ``none``."""
    age_seconds: float | None = None
    similarity: float | None = None
    """Cosine of the neighbour served or judged best; side channel, for authorised callers only."""
    score: float | None = None
    guard: str | None = None
    """The guard that refused the neighbour, where one did."""
    storable: bool = False
    """The fresh answer may be stored."""
    lookup_seconds: float = 0.0
    address: Address | None = None
    identity: Identity | None = None
    index_allowed: bool = False
    """The answer may enter the semantic tier."""
    vector: Vector | None = field(default=None, repr=False)
    neighbours: tuple[Neighbour, ...] = field(default=(), repr=False)
    """What the judge saw, for shadow verification."""
    candidates: tuple[CachedAnswer, ...] = field(default=(), repr=False)
    """The stored answers of ``neighbours``, same order."""
    chosen: int | None = None
    """Position in ``neighbours`` of the one served or judged best."""
    budget: Budget | None = field(default=None, repr=False)
    started_seconds: float = 0.0
    """Monotonic."""

    @property
    def hit(self) -> bool:
        return self.outcome.hit

    @property
    def judged(self) -> tuple[Neighbour, CachedAnswer] | None:
        """The neighbour served or judged best, and its stored answer."""
        return None if self.chosen is None else (self.neighbours[self.chosen], self.candidates[self.chosen])

    @property
    def shareable(self) -> bool:
        """Concurrent identical requests may share one run."""
        control = self.request.cache_control
        return self.storable and not self.hit and not control.no_cache and control.max_age_seconds != 0

    @property
    def key(self) -> str | None:
        """Exact key with epochs; equal only for requests that may share an answer, never across tenants."""
        return self.address.exact if self.address else None

    @property
    def partition(self) -> str | None:
        return self.address.partition if self.address else None

    @property
    def cache_id(self) -> str | None:
        """Of the entry served, or of the one that the fresh answer will be stored under."""
        if self.answer is not None:
            return self.answer.cache_id
        return self.address.cache_id if self.address and self.storable else None

    @property
    def only_if_cached(self) -> bool:
        """True on a miss that the client wants answered with 504, not with a run."""
        return self.request.cache_control.only_if_cached and not self.hit

    def headers(self, *, authorised: bool = False) -> dict[str, str]:
        """``authorised``: the caller may see the similarity."""
        return response_headers(
            self.outcome,
            age_seconds=self.age_seconds,
            cache_id=self.cache_id,
            similarity=self.similarity,
            authorised=authorised,
        )


@dataclass(frozen=True, slots=True)
class Stored:
    stored: bool
    """In at least one tier."""
    why: str
    """``stored``, or the name of what refused or was lost."""
    semantic: bool = False
    """In the semantic tier too."""


@dataclass(frozen=True, slots=True)
class Invalidated:
    done: bool
    why: str
    """``done``, ``absent``, ``not_yours``, or the loss that prevented it."""
    answer: CachedAnswer | None = None
    """The entry removed, where one was named by id."""
