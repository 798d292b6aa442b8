"""Whether a node's meter is still needed: by replicas that live, or by some that are loading."""

from __future__ import annotations

import time
from collections.abc import Callable

COMING_SECONDS = 1800.0
"""A replica that has announced itself and not come by then is not waited for: longer than a large model takes to
load."""


class Presence:
    """``leave_after_seconds``: without anybody for so long it is not needed; None: it always is."""

    def __init__(self, leave_after_seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._leave_after_seconds = leave_after_seconds
        self._clock = clock
        self._somebody_seconds = clock()
        self._coming: dict[str, float] = {}

    def expect(self, source: str) -> None:
        """One is loading."""
        self._coming[source] = self._clock() + COMING_SECONDS

    def arrived(self, source: str) -> None:
        self._coming.pop(source, None)

    def needed(self, living: bool) -> bool:
        """To be asked now and then. ``living``: whether a replica reports."""
        now = self._clock()
        self._coming = {source: until for source, until in self._coming.items() if now < until}
        if living or self._coming:
            self._somebody_seconds = now
        return self._leave_after_seconds is None or now - self._somebody_seconds < self._leave_after_seconds
