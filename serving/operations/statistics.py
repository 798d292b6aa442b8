"""Statistics of two samples, reference and present: pure functions, each with its threshold under no change."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ks(reference: Sequence[float], present: Sequence[float]) -> float:
    """Largest distance between the two empirical distribution functions, 0 to 1 (Kolmogorov and Smirnov).

    Raises ``ValueError`` for an empty sample.
    """
    if not reference or not present:
        raise ValueError("both samples need values")
    a, b = sorted(reference), sorted(present)
    return max(abs(bisect.bisect_right(a, x) / len(a) - bisect.bisect_right(b, x) / len(b)) for x in {*a, *b})


def ks_threshold(reference_size: int, present_size: int, alpha: float) -> float:
    """Critical value at ``alpha``: sqrt(-ln(alpha / 2) / 2) * sqrt((n + m) / (n m)) (Smirnov 1948, large samples;
    conservative for values that repeat, as token counts do)."""
    return math.sqrt(-math.log(alpha / 2) / 2 * (reference_size + present_size) / (reference_size * present_size))


def moved(reference: Sequence[float], present: Sequence[float]) -> float:
    """How far the one distribution lies from the other (Wasserstein's first distance), over the reference's mean.

    By 200 quantiles of each; infinite for a mean of 0 that has moved.
    """
    at = (np.arange(200) + 0.5) / 200
    apart = float(np.mean(np.abs(np.quantile(reference, at) - np.quantile(present, at))))
    mean = abs(math.fsum(reference) / len(reference))
    return apart / mean if mean else (math.inf if apart else 0.0)


def quantile_edges(reference: Sequence[float], bins: int = 10) -> list[float]:
    """Inner edges that cut the reference into ``bins`` parts of equal size; fewer where values repeat."""
    ordered = sorted(reference)
    return sorted({ordered[min(len(ordered) - 1, len(ordered) * cut // bins)] for cut in range(1, bins)})


def psi(reference: Sequence[float], present: Sequence[float], edges: Sequence[float]) -> float:
    """Population stability index over bins cut at ``edges``: sum of (p - q) ln(p / q).

    Below 0.1 is read as no change, above 0.25 as a large one (Siddiqi, Credit Risk Scorecards, 2006). Half a count
    is added to each bin, so that an empty one does not make it infinite.
    """
    bins = len(edges) + 1

    def shares(sample: Sequence[float]) -> list[float]:
        counts = [0.5] * bins
        for value in sample:
            counts[bisect.bisect_left(edges, value)] += 1
        return [count / (len(sample) + 0.5 * bins) for count in counts]

    return sum((p - q) * math.log(p / q) for p, q in zip(shares(present), shares(reference), strict=True))


def psi_threshold(reference_size: int, present_size: int, bins: int, z: float) -> float:
    """What PSI exceeds by chance only as often as a normal exceeds ``z``: (1/n + 1/m) times the quantile of
    chi-squared with ``bins - 1`` degrees (Yurdakul 2018)."""
    degrees = max(1, bins - 1)
    return degrees * _chi_squared_share(degrees, z) * (1 / reference_size + 1 / present_size)


def _chi_squared_share(degrees: float, z: float) -> float:
    """Quantile of chi-squared over its degrees, where a normal has ``z`` (Wilson and Hilferty 1931)."""
    return (1 - 2 / (9 * degrees) + z * math.sqrt(2 / (9 * degrees))) ** 3


def proportion_z(reference_hits: int, reference_size: int, present_hits: int, present_size: int) -> float:
    """Signed z of the difference of two proportions, pooled; positive where the present one is larger."""
    pooled = (reference_hits + present_hits) / (reference_size + present_size)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / reference_size + 1 / present_size))
    difference = present_hits / present_size - reference_hits / reference_size
    return 0.0 if spread == 0 else difference / spread


def mean_z(reference: Sequence[float], present: Sequence[float]) -> float:
    """Signed z of the difference of two means, variances apart (Welch 1947, large samples)."""

    def moments(sample: Sequence[float]) -> tuple[float, float]:
        mean = math.fsum(sample) / len(sample)
        return mean, math.fsum((value - mean) ** 2 for value in sample) / max(1, len(sample) - 1) / len(sample)

    (before, before_variance), (after, after_variance) = moments(reference), moments(present)
    spread = math.sqrt(before_variance + after_variance)
    if spread == 0:
        return 0.0 if after == before else math.copysign(math.inf, after - before)
    return (after - before) / spread


def mean_shift(reference: NDArray[np.floating], present: NDArray[np.floating], z: float) -> tuple[float, float, float]:
    """How far the mean of vectors (one a row) has moved: (statistic, its threshold under no change, shift).

    The statistic is the squared distance of the means over what it is expected to be by chance,
    tr(C) (1/n + 1/m) with the pooled covariance C. By chance it is distributed as chi-squared over its degrees,
    with tr(C)^2 / tr(C^2) of them (Box 1954): that threshold is exceeded as often as a normal exceeds ``z``. The shift
    is the distance over sqrt(tr(C)), the spread of one sample.
    """
    one, other = np.asarray(reference, dtype=np.float64), np.asarray(present, dtype=np.float64)
    a, b = one.mean(axis=0), other.mean(axis=0)
    centred = np.concatenate([one - a, other - b])
    covariance = centred.T @ centred / max(1, len(centred) - 2)
    spread = float(np.trace(covariance))
    apart = float(((a - b) ** 2).sum())
    if spread <= 0:
        return (0.0, 1.0, 0.0) if apart == 0 else (math.inf, 1.0, math.inf)
    degrees = spread**2 / float((covariance**2).sum())
    statistic = apart / (spread * (1 / len(one) + 1 / len(other)))
    return statistic, _chi_squared_share(degrees, z), math.sqrt(apart / spread)
