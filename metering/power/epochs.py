"""A raw counter of another party as one that never falls: each fall starts a new epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class EpochCounter:
    """Follows one raw counter. Readings before and after a fall (driver reload, restart) have no difference."""

    epoch: int = 0
    last: int | None = None

    def follow(self, raw: int) -> int:
        """The reading, in the epoch that ``epoch`` names from now on."""
        if self.last is not None and raw < self.last:
            self.epoch += 1
        self.last = raw
        return raw
