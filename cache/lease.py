"""Single flight across replicas: one computes, the others follow it or wait; a dead leader's place is taken."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cache.entry import CachedAnswer
from cache.identity import Address
from cache.observer import CacheObserver, Operation
from cache.relay import Along, Relays, RelaySettings, Sleep
from cache.store import Budget, Lease, LeaseState, ResponseStore, StoreUnavailable

Rank = Callable[[], int]
"""How urgent the run is at present; 0 is the most urgent."""


def most_urgent() -> int:
    """``Rank`` of a run that nobody may overtake."""
    return 0


@dataclass(slots=True)
class Turn:
    """What a replica is to do: serve ``answer``, pass on ``along``, or run (with ``lease``, if it holds one)."""

    answer: CachedAnswer | None = None
    along: Along | None = None
    """Another replica's run, which has begun to give frames."""
    lease: Lease | None = None
    waited: bool = False
    """Another replica was computing it."""
    stored: bool = False
    """Set by the caller once the body is written; else the waiting are told to run for themselves."""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    lease_seconds: float = 5.0
    """A dead leader's place is free after so long; a living one renews at a third of it."""
    declined_seconds: float = 2.0
    """After an answer that may not be stored, identical requests run unshared for so long."""
    first_wait_seconds: float = 0.02
    longest_wait_seconds: float = 0.25
    """Between two looks of one waiting replica, growing by half each time."""


class Leases:
    """Asks for turns. Where the store is away everybody runs: sharing is optional, answering is not."""

    def __init__(
        self,
        store: ResponseStore,
        *,
        observer: CacheObserver,
        budget: Callable[[], Budget],
        settings: LeaseSettings | None = None,
        relay_settings: RelaySettings | None = None,
        sleep: Sleep = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._observer = observer
        self._budget = budget
        self._settings = settings or LeaseSettings()
        self._sleep = sleep
        self._replica = uuid.uuid4().hex
        self._numbers = itertools.count()
        self.relays = Relays(
            store.relay,
            replica=self._replica,
            observer=observer,
            budget=budget,
            settings=relay_settings,
            sleep=sleep,
            monotonic=monotonic,
        )

    @asynccontextmanager
    async def turn(
        self, address: Address, *, budget: Budget | None = None, rank: Rank = most_urgent, follow: bool = False
    ) -> AsyncIterator[Turn]:
        """Wait for a body or for the lease, or with ``follow`` for the first frames of another's stream.

        ``budget`` is that of the first look; each later one has its own.

        Nobody waits for a less urgent run: its lease is taken over, it ends unshared, and its answer is not stored
        over the other. ``rank`` is looked at again at each renewal: a run that has begun is worth waiting for.

        Leaving without an error and without ``stored`` declines the lease; with an error or cancelled,
        the lease is free for the next at once.
        """
        turn = await self._claim(address, budget or self._budget(), rank, follow)
        if turn.lease is None:
            yield turn
            return
        renewing = asyncio.create_task(self._renew(turn.lease, rank))
        declined: float | None = None
        try:
            yield turn
            declined = None if turn.stored else self._settings.declined_seconds
        finally:
            renewing.cancel()
            await self._release(turn.lease, declined)

    async def _claim(self, address: Address, budget: Budget, rank: Rank, follow: bool) -> Turn:
        owner = f"{self._replica}-{next(self._numbers)}"
        waited, pause = False, self._settings.first_wait_seconds
        along: Along | None = None
        while True:
            try:
                claim = await self._store.claim(address, owner, self._settings.lease_seconds, budget, rank=rank())
            except StoreUnavailable as unavailable:
                self._observer.lost(Operation.LOCK, unavailable.loss)
                return Turn(waited=waited)
            if claim.state is not LeaseState.HELD:
                return Turn(answer=claim.answer, lease=claim.lease, waited=waited)
            waited = True
            if follow and claim.holder is not None:
                if along is None or along.holder != claim.holder:
                    along = self.relays.follow(claim.holder)
                if await along.look():
                    return Turn(along=along, waited=True)
            await self._sleep(pause)
            pause = min(1.5 * pause, self._settings.longest_wait_seconds)
            budget = self._budget()

    async def _renew(self, lease: Lease, rank: Rank) -> None:
        held = True
        while held:
            await self._sleep(self._settings.lease_seconds / 3)
            try:
                held = await self._store.renew(lease, self._settings.lease_seconds, self._budget(), rank=rank())
            except StoreUnavailable as unavailable:
                self._observer.lost(Operation.LOCK, unavailable.loss)

    async def _release(self, lease: Lease, declined_seconds: float | None) -> None:
        try:
            await self._store.release(lease, self._budget(), declined_seconds=declined_seconds)
        except StoreUnavailable as unavailable:
            # It ends by itself after lease_seconds.
            self._observer.lost(Operation.LOCK, unavailable.loss)
