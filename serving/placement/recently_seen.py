"""What was there a while ago still counts, so that its absence can be told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

REMEMBERED_SECONDS = 900.0


class RecentlySeen:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, float] = {}

    def __call__(self, present: Iterable[str]) -> list[str]:
        """Those present now, and those of the last ``REMEMBERED_SECONDS``."""
        now = self._clock()
        self._seen |= dict.fromkeys(present, now)
        self._seen = {name: at for name, at in self._seen.items() if now - at <= REMEMBERED_SECONDS}
        return sorted(self._seen)
