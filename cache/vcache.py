"""Per-entry policy of vCache (Schroeder et al., arXiv 2502.03771): each entry learns how similar is similar enough.

Observations of an entry are pairs (similarity s, was its answer right). P(right | s) = sigmoid(gamma (s - t)) is fitted
to them; t' is the upper bound of t at level 1 - e. Then alpha(e) = (1 - e) sigmoid(gamma (s - t'(e))) bounds from below
the chance of being right, tau = min over e of 1 - max_wrong / (1 - alpha(e)) is how often to explore, and the entry is
served where a uniform draw exceeds tau.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from statistics import NormalDist

_SEEDS = ((0.0, False), (1.0, True))
_EXPLORE = 6
"""Observations, seeds not counted, before an entry may serve."""
_LEVELS = tuple(i / 50 for i in range(1, 50))
_STEEPEST = 200.0
"""Bound of gamma: perfectly separated observations have no finite fit."""


class VCachePolicy:
    """Observations by entry id, in process, least recently used forgotten beyond ``entries``."""

    def __init__(self, max_wrong: float, *, rng: random.Random | None = None, entries: int = 100_000) -> None:
        if not 0.0 <= max_wrong <= 1.0:
            raise ValueError(f"max_wrong: {max_wrong} is not a share; expected a number from 0 to 1, as 0.02")
        self.max_wrong = max_wrong
        self._rng = rng or random.Random(0)
        self._capacity = entries
        self._seen: OrderedDict[str, list[tuple[float, bool]]] = OrderedDict()

    def serve(self, entry_id: str, similarity: float) -> bool:
        """One draw."""
        return self._rng.random() > self.explore_share(entry_id, similarity)

    def explore_share(self, entry_id: str, similarity: float) -> float:
        """tau: 1 asks the model always."""
        seen = self._seen.get(entry_id, [])
        if len(seen) < _EXPLORE:
            return 1.0
        gamma, t, deviation = fit([*_SEEDS, *seen])
        return explore_share(similarity, gamma, t, deviation, self.max_wrong)

    def observe(self, entry_id: str, similarity: float, right: bool) -> bool:
        """Record one exploration. True: insert the fresh answer as an entry of its own, for it disagreed."""
        seen = self._seen.setdefault(entry_id, [])
        self._seen.move_to_end(entry_id)
        seen.append((similarity, right))
        del seen[:-200]
        while len(self._seen) > self._capacity:
            self._seen.popitem(last=False)
        return not right

    def forget(self, entry_id: str) -> None:
        self._seen.pop(entry_id, None)


def explore_share(similarity: float, gamma: float, t: float, deviation: float, max_wrong: float) -> float:
    """tau in [0, 1] for one similarity."""
    best = 1.0
    for e in _LEVELS:
        bound = t + NormalDist().inv_cdf(1 - e) * deviation
        alpha = (1 - e) * _sigmoid(gamma * (similarity - bound))
        best = min(best, 1 - max_wrong / (1 - alpha) if alpha < 1 else 0.0)
    return max(0.0, best)


def fit(observations: list[tuple[float, bool]]) -> tuple[float, float, float]:
    """(gamma, t, standard deviation of t) by damped Newton steps on the logistic likelihood, delta method for t.

    A ridge of 1e-3 keeps separated observations finite.
    """
    slope, intercept = 1.0, -0.5
    ridge = 1e-3
    for _ in range(50):
        g0 = g1 = 0.0
        h00 = h01 = h11 = ridge
        h01 = 0.0
        for s, right in observations:
            p = _sigmoid(slope * s + intercept)
            w = max(p * (1 - p), 1e-9)
            g0 += right - p
            g1 += (right - p) * s
            h00 += w
            h01 += w * s
            h11 += w * s * s
        g0 -= ridge * intercept
        g1 -= ridge * slope
        determinant = h00 * h11 - h01 * h01
        step0 = (h11 * g0 - h01 * g1) / determinant
        step1 = (h00 * g1 - h01 * g0) / determinant
        damping = min(1.0, 20.0 / max(abs(step0), abs(step1), 1e-12))
        intercept += damping * step0
        slope = min(max(slope + damping * step1, 1e-3), _STEEPEST)
        if abs(step0) + abs(step1) < 1e-8:
            break
    t = -intercept / slope
    variance = h11 / determinant
    covariance, variance_slope = -h01 / determinant, h00 / determinant
    d_intercept, d_slope = -1 / slope, intercept / (slope * slope)
    spread = d_intercept**2 * variance + 2 * d_intercept * d_slope * covariance + d_slope**2 * variance_slope
    return slope, t, math.sqrt(max(spread, 0.0))


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(value, -60.0), 60.0)))
