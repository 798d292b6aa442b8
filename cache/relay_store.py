"""The seam through which a run's frames reach other replicas while it goes on; in memory here, Redis beside it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cache.store import Budget, Lease

READ_BATCHES = 8
"""That one look fetches at most, so that no reply outlasts its budget; the next one takes the rest."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some frames of a run, in order."""

    number: int
    """From 1, without gaps."""
    frames: tuple[bytes, ...]
    last: bool = False
    receipt: dict[str, Any] | None = None
    """Of the run; with the last one."""

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.frames))


@dataclass(frozen=True, slots=True)
class Followed:
    """What a look at another's run gave."""

    batches: tuple[Batch, ...]
    alive: bool
    """Whether its lease was still held before the batches were read: if not, no more will come."""
    kept: bool = True
    """Whether the store has anything of it. If not, and it is not alive, the store may have come back empty."""


class RelayStore(Protocol):
    """Every method spends from ``budget`` and raises ``StoreUnavailable``, nothing else."""

    async def wish(self, holder: Lease, life_seconds: float, budget: Budget) -> None:
        """Tell the holder's replica that its run is followed from elsewhere."""

    async def wishes(self, replica: str, budget: Budget) -> set[str]:
        """The owners of this replica's leases that were wished for since the last call."""

    async def push(
        self, lease: Lease, batches: Sequence[Batch], keep_from: int, life_seconds: float, budget: Budget
    ) -> bool:
        """Append what is not there yet and drop what comes before ``keep_from``; False where the lease is lost.

        From here on nobody overtakes the run, however urgent.
        """

    async def follow(self, holder: Lease, after: int, budget: Budget) -> Followed:
        """The next batches after number ``after``, ``READ_BATCHES`` at most."""


@dataclass(slots=True)
class _Kept:
    until_seconds: float
    batches: dict[int, Batch] = field(default_factory=dict)


class MemoryRelay:
    """Same contract as Redis. ``held``: whether a lease is its owner's at present; ``hold`` makes it
    most urgent too, and sets it again for so many seconds where it is gone and nobody took it.
    """

    def __init__(
        self,
        held: Callable[[Lease], bool],
        hold: Callable[[Lease, float], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._held = held
        self._hold = hold
        self._clock = clock
        self._wishes: dict[str, tuple[set[str], float]] = {}
        self._runs: OrderedDict[Lease, _Kept] = OrderedDict()

    async def wish(self, holder: Lease, life_seconds: float, budget: Budget) -> None:
        self._sweep()
        owners, _ = self._wishes.get(holder.replica, (set(), 0.0))
        self._wishes[holder.replica] = (owners | {holder.owner}, self._clock() + life_seconds)

    async def wishes(self, replica: str, budget: Budget) -> set[str]:
        self._sweep()
        return self._wishes.pop(replica, (set(), 0.0))[0]

    async def push(
        self, lease: Lease, batches: Sequence[Batch], keep_from: int, life_seconds: float, budget: Budget
    ) -> bool:
        self._sweep()
        if not self._hold(lease, life_seconds):
            return False
        kept = self._runs.setdefault(lease, _Kept(0.0))
        newest = max(kept.batches, default=0)
        kept.batches |= {batch.number: batch for batch in batches if batch.number > newest}
        kept.batches = {number: batch for number, batch in kept.batches.items() if number >= keep_from}
        kept.until_seconds = self._clock() + life_seconds
        return True

    async def follow(self, holder: Lease, after: int, budget: Budget) -> Followed:
        self._sweep()
        kept = self._runs.get(holder)
        later = [batch for number, batch in kept.batches.items() if number > after] if kept else []
        return Followed(tuple(later[:READ_BATCHES]), self._held(holder), kept=kept is not None)

    def clear(self) -> None:
        self._wishes.clear()
        self._runs.clear()

    def _sweep(self) -> None:
        now = self._clock()
        for replica in [name for name, (_, until) in self._wishes.items() if now >= until]:
            del self._wishes[replica]
        for lease in [lease for lease, kept in self._runs.items() if now >= kept.until_seconds]:
            del self._runs[lease]
