"""Times of tokens, counted as they come: one increment each, however many there are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_BINS_PER_E = 100
"""Bins of 1 %."""
_SHORTEST, _LONGEST = 1e-5, 200.0
"""Seconds; what is outside counts as these."""
_OFFSET = 1 - int(math.log(_SHORTEST) * _BINS_PER_E)
_BINS = _OFFSET + int(math.log(_LONGEST) * _BINS_PER_E) + 2


class GapHistogram:
    """On one event loop, so nothing is locked."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = [0] * _BINS

    @property
    def total(self) -> int:
        return sum(self._counts)

    def clear(self) -> None:
        self._counts[:] = [0] * _BINS

    def add(self, seconds: float, _log: Callable[[float], float] = math.log) -> None:
        """One gap of so long. On the hot path of every stream: this is all that is done for a token."""
        if not _SHORTEST < seconds < _LONGEST:
            seconds = _SHORTEST if seconds <= _SHORTEST else _LONGEST
        self._counts[int(_log(seconds) * _BINS_PER_E) + _OFFSET] += 1

    def add_many(self, seconds: float, count: int) -> None:
        """``count`` gaps of so long."""
        seconds = min(max(seconds, _SHORTEST), _LONGEST)
        self._counts[int(math.log(seconds) * _BINS_PER_E) + _OFFSET] += count

    def percentile(self, percent: float) -> float | None:
        """To 1 %; None where nothing was added."""
        reached = np.cumsum(self._counts)
        if reached[-1] == 0:
            return None
        place = int(np.searchsorted(reached, percent / 100 * reached[-1]))
        # ``int`` goes towards 0: a bin of gaps above 1 s holds what is up to 1 % longer, one below what is shorter
        middle = place - _OFFSET + (0.5 if place > _OFFSET else -0.5 if place < _OFFSET else 0.0)
        return math.exp(middle / _BINS_PER_E)
