"""Streams across replicas: a run's frames go out while another replica wishes for them, and are read as it runs."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cache.observer import CacheObserver, Operation
from cache.relay_store import READ_BATCHES, Batch, RelayStore
from cache.single_flight import Flight
from cache.store import Budget, Lease, StoreUnavailable

Sleep = Callable[[float], Awaitable[None]]
Keep = Callable[[], AbstractAsyncContextManager[object]]
"""Holds a place aboard a flight, so that it goes on when its own clients have left."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    look_seconds: float = 0.25
    """Between two looks of a replica for wishes, one look for all its runs."""
    batch_seconds: float = 0.05
    """Between two batches of a run, and between two looks at one that gives frames."""
    longest_wait_seconds: float = 0.25
    """Between two looks at a run that gives none."""
    wish_seconds: float = 2.0
    """A run goes out so long after the last wish for it; a follower renews its wish at a quarter of it."""
    life_seconds: float = 10.0
    """Of frames in the store after the last of them; twice a lease, so that who follows has time to read the end."""
    batch_bytes: int = 32 * 1024
    """Of one batch, and an eighth of what one call sends; well within a call's budget on a local network."""
    held_bytes: int = 4 * 1024 * 1024
    """Of one run in the store, some 20,000 tokens' frames. Beyond it the oldest go: newcomers wait for the answer."""
    unheld_seconds: float = 2.5
    """Of a store that came back empty, until the run's lock is there again: half a lease, renewed at a third of it."""


class RelayBroken(Exception):
    """The run that was followed ended, or could not be read any more, after frames of it had been passed on."""


class Outbound:
    """A run of this replica, and what of it other replicas have been sent."""

    def __init__(self, relays: Relays, lease: Lease, flight: Flight, keep: Keep) -> None:
        self._relays = relays
        self._lease = lease
        self._flight = flight
        self._keep = keep
        self._ends: list[int] = []
        """Where each batch ends in the flight's frames: a batch that is sent again is the same batch."""
        self._sizes: list[int] = []
        self._sent = 0
        self._wanted_until = 0.0
        self._fenced = False
        self._followed = False
        """Whether anyone ever wished for it; who did may read it still."""
        self._ended = False
        self._sending: asyncio.Task[None] | None = None

    def wished(self) -> None:
        self._wanted_until = self._relays.monotonic() + self._relays.settings.wish_seconds
        if self._ended:
            return
        self._followed = True
        if self._sending is None and not self._fenced:
            # After a pause the store may have dropped what was there; what it still has it does not take twice.
            self._sent = 0
            self._sending = asyncio.create_task(self._send(), name="relay-send")

    async def end(self, receipt: dict[str, Any]) -> None:
        """Write the rest and the end, if anyone ever wished; once, after the flight has finished.

        Nobody waits for it but those who follow, so a store that is away is tried again for half the frames' life.
        """
        if not self._followed:
            return
        self._ended = True
        await self.close()
        self._cut(last=True)
        until = self._relays.monotonic() + self._relays.settings.life_seconds / 2
        while not await self._push(receipt) and not self._fenced and self._relays.monotonic() < until:
            await self._relays.sleep(self._relays.settings.batch_seconds)

    async def close(self) -> None:
        """Stop sending."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()
            await asyncio.wait([sending])

    async def _send(self) -> None:
        async with self._keep():
            while not self._fenced and self._relays.monotonic() < self._wanted_until:
                self._cut()
                await self._push()
                await self._relays.sleep(self._relays.settings.batch_seconds)
            # A wish that comes while the place is given back begins anew.
            self._sending = None

    def _cut(self, *, last: bool = False) -> None:
        """Make batches of what was published since."""
        frames, most = self._flight.published(), self._relays.settings.batch_bytes
        start, size = (self._ends[-1] if self._ends else 0), 0
        for position in range(start, len(frames)):
            size += len(frames[position])
            if size >= most:
                self._close_batch(position + 1, size)
                size = 0
        if size or last:
            self._close_batch(len(frames), size)

    def _close_batch(self, end: int, size: int) -> None:
        self._ends.append(end)
        self._sizes.append(size)

    async def _push(self, receipt: dict[str, Any] | None = None) -> bool:
        """Send what the store has not got; False where it could not be done. ``receipt``: of a run that is over."""
        keep_from = self._keep_from()
        while self._sent < len(self._ends) and not self._fenced:
            first = max(self._sent + 1, keep_from)
            until = min(first + READ_BATCHES, len(self._ends) + 1)
            batches = [self._batch(number, receipt) for number in range(first, until)]
            settings = self._relays.settings
            try:
                held = await self._relays.store.push(
                    self._lease, batches, keep_from, settings.life_seconds, self._relays.budget()
                )
            except StoreUnavailable as unavailable:
                self._relays.observer.lost(Operation.RELAY, unavailable.loss)
                return False
            self._fenced = not held
            self._sent = until - 1
        return not self._fenced

    def _batch(self, number: int, receipt: dict[str, Any] | None) -> Batch:
        start = self._ends[number - 2] if number > 1 else 0
        frames = tuple(self._flight.published()[start : self._ends[number - 1]])
        last = receipt is not None and number == len(self._ends)
        return Batch(number, frames, last=last, receipt=receipt if last else None)

    def _keep_from(self) -> int:
        """The oldest batch that the bound leaves in the store; the newest always stays."""
        sizes = itertools.accumulate(reversed(self._sizes))
        within = sum(1 for size in sizes if size <= self._relays.settings.held_bytes)
        return len(self._sizes) - max(1, within) + 1


class Along:
    """A run of another replica, read as it runs."""

    def __init__(self, relays: Relays, holder: Lease) -> None:
        self.holder = holder
        self.receipt: dict[str, Any] | None = None
        """Of the run; once ``frames`` has ended."""
        self._relays = relays
        self._ready: deque[bytes] = deque()
        self._number = 0
        self._over = False
        self._broken = False
        self._wished_seconds: float | None = None
        self._heard_seconds = relays.monotonic()
        self._unheld_since_seconds: float | None = None

    async def look(self) -> bool:
        """Renew the wish and take what has come; whether there is anything to read."""
        now, settings = self._relays.monotonic(), self._relays.settings
        store, budget = self._relays.store, self._relays.budget()
        try:
            if self._wished_seconds is None or now - self._wished_seconds >= settings.wish_seconds / 4:
                await store.wish(self.holder, settings.wish_seconds, budget)
                self._wished_seconds = now
            followed = await store.follow(self.holder, self._number, budget)
        except StoreUnavailable as unavailable:
            self._relays.observer.lost(Operation.RELAY, unavailable.loss)
            self._broken = self._broken or now - self._heard_seconds > settings.life_seconds
            return False
        self._heard_seconds = now
        if followed.batches or followed.alive:
            self._unheld_since_seconds = None
        elif followed.kept:
            self._broken = True
        elif self._unheld_since_seconds is None:
            # The store may have come back empty: a living holder sets its lock again.
            self._unheld_since_seconds = now
        elif now - self._unheld_since_seconds > settings.unheld_seconds:
            self._broken = True
        for batch in followed.batches:
            if batch.number != self._number + 1:
                # What lies between was dropped: there is no joining any more.
                self._broken = True
                break
            self._number = batch.number
            self._ready.extend(batch.frames)
            self._over, self.receipt = batch.last, batch.receipt
        return bool(self._ready)

    async def frames(self) -> AsyncIterator[bytes]:
        """From the first on, as they come.

        Raises:
            RelayBroken: its end will not come.
        """
        settings = self._relays.settings
        pause = settings.batch_seconds
        while True:
            if self._ready:
                pause = settings.batch_seconds
            while self._ready:
                yield self._ready.popleft()
            if self._over:
                return
            if self._broken:
                raise RelayBroken
            await self._relays.sleep(pause)
            pause = min(1.5 * pause, settings.longest_wait_seconds)
            await self.look()


class Relays:
    """What a replica's runs send to others. One look at a time tells for all of them which are wished for."""

    def __init__(
        self,
        store: RelayStore,
        *,
        replica: str,
        observer: CacheObserver,
        budget: Callable[[], Budget],
        settings: RelaySettings | None = None,
        sleep: Sleep = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.observer = observer
        self.budget = budget
        self.settings = settings or RelaySettings()
        self.sleep = sleep
        self.monotonic = monotonic
        self._replica = replica
        self._outbound: dict[str, Outbound] = {}
        self._looking: asyncio.Task[None] | None = None

    def follow(self, holder: Lease) -> Along:
        return Along(self, holder)

    @asynccontextmanager
    async def offer(self, lease: Lease, flight: Flight, keep: Keep) -> AsyncIterator[Outbound]:
        """For the time of a run; its ``end`` is the caller's to tell."""
        outbound = self._outbound[lease.owner] = Outbound(self, lease, flight, keep)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="relay-look")
        try:
            yield outbound
        finally:
            del self._outbound[lease.owner]
            await outbound.close()

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look(self) -> None:
        try:
            while self._outbound:
                try:
                    for owner in await self.store.wishes(self._replica, self.budget()):
                        if owner in self._outbound:
                            self._outbound[owner].wished()
                except StoreUnavailable as unavailable:
                    self.observer.lost(Operation.RELAY, unavailable.loss)
                await self.sleep(self.settings.look_seconds)
        finally:
            self._looking = None
