"""How far the comparison of two answers can be trusted, and what that makes of the wrong answers it counts.

A label says that two answers differ. Sampled answers also differ where both are right, and two answers to different
questions may look alike. Both errors are measured on comparisons whose truth is known: two runs of one request (one
question, so a difference is a false alarm), and a fresh answer beside a stored one that a guard kept apart from it
(two questions, so an agreement is a miss). The observed share of differing answers q then gives the share of wrong
ones, p = (q - f) / (1 - f - m): Rogan and Gladen (1978), Am. J. Epidemiol. 107.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from cache.calibration import wilson

Truth = Literal["same", "different"]
LEAST_TRIALS = 20
"""Comparisons of a known truth before their error rate is believed; until then that error counts as none, which
takes every difference for a wrong answer."""


class ComparatorError:
    """Recent comparisons of a known truth. ``window`` of each kind are kept."""

    def __init__(self, window: int = 1000) -> None:
        self._alarms: deque[bool] = deque(maxlen=window)
        self._misses: deque[bool] = deque(maxlen=window)

    def observe(self, truth: Truth, agreed: bool) -> None:
        """One comparison of answers to the ``same`` question or to ``different`` ones."""
        if truth == "same":
            self._alarms.append(not agreed)
        else:
            self._misses.append(agreed)

    def forget(self) -> None:
        self._alarms.clear()
        self._misses.clear()

    @property
    def false_alarms(self) -> tuple[int, int]:
        """(answers to one question told apart, such comparisons)."""
        return sum(self._alarms), len(self._alarms)

    @property
    def misses(self) -> tuple[int, int]:
        """(answers to different questions taken for the same, such comparisons)."""
        return sum(self._misses), len(self._misses)

    def wrong(self, differing: int, compared: int) -> tuple[float, float, float]:
        """(estimate, lower, upper) of the share that is wrong, when ``differing`` of ``compared`` answers differed.

        The bounds take the 95 % Wilson bounds of all three shares at their worst, so they hold at least as often.
        """
        low, high = wilson(differing, compared)
        if not compared:
            return float("nan"), 0.0, 1.0
        (alarm_low, alarm, alarm_high), (miss_low, miss, miss_high) = self._rates()
        return (
            _corrected(differing / compared, alarm, miss),
            _corrected(low, alarm_high, miss_low),
            _corrected(high, alarm_low, miss_high),
        )

    def differing_allowed(self, max_wrong: float) -> float:
        """The share of differing answers that a budget for wrong ones stands for, on the strict side."""
        (alarm, _, _), (_, _, miss) = self._rates()
        return min(1.0, alarm + max_wrong * max(0.0, 1.0 - alarm - miss))

    def _rates(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """(lower, estimate, upper) of false alarms and of misses."""

        def rate(count: int, trials: int) -> tuple[float, float, float]:
            if trials < LEAST_TRIALS:
                return 0.0, 0.0, 0.0
            low, high = wilson(count, trials)
            return low, count / trials, high

        return rate(*self.false_alarms), rate(*self.misses)


def _corrected(differing: float, alarm: float, miss: float) -> float:
    if alarm + miss >= 1.0:
        return 1.0 if differing > alarm else 0.0
    return min(1.0, max(0.0, (differing - alarm) / (1.0 - alarm - miss)))
