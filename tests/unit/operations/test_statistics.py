from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from serving.operations.statistics import ks, ks_threshold, mean_z, proportion_z, psi, psi_threshold, quantile_edges

samples = st.lists(st.integers(0, 1000).map(float), min_size=1, max_size=60)
several = samples.filter(lambda sample: len(sample) > 1)


@given(samples)
def test_a_sample_does_not_differ_from_itself(sample: list[float]) -> None:
    assert ks(sample, sample) == 0
    assert psi(sample, sample, quantile_edges(sample)) == pytest.approx(0)
    assert mean_z(sample, sample) == 0


@given(samples, samples)
def test_distances_are_symmetric_and_bounded(one: list[float], other: list[float]) -> None:
    assert ks(one, other) == pytest.approx(ks(other, one))
    assert 0 <= ks(one, other) <= 1
    edges = quantile_edges(one)
    assert psi(one, other, edges) == pytest.approx(psi(other, one, edges))
    assert psi(one, other, edges) >= 0
    assert mean_z(one, other) == pytest.approx(-mean_z(other, one))


@settings(deadline=None)
@given(several, several)
def test_ks_is_that_of_scipy(one: list[float], other: list[float]) -> None:
    assert ks(one, other) == pytest.approx(ks_2samp(one, other, method="asymp").statistic)


def test_samples_without_overlap_are_as_far_apart_as_can_be() -> None:
    assert ks([1, 2, 3], [4, 5]) == 1


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="both samples"):
        ks([], [1])


def test_psi_of_two_bins_by_hand() -> None:
    # 100 each, half a count added to each bin: 50.5/101 against 80.5/101 and 20.5/101
    reference, present = [0.0] * 50 + [1.0] * 50, [0.0] * 80 + [1.0] * 20
    by_hand = (80.5 - 50.5) / 101 * math.log(80.5 / 50.5) + (20.5 - 50.5) / 101 * math.log(20.5 / 50.5)
    assert psi(reference, present, [0.5]) == pytest.approx(by_hand)


def test_thresholds_by_the_tables() -> None:
    # Massey 1951: 1.36 sqrt((n + m) / n m) at 0.05
    assert ks_threshold(100, 100, 0.05) == pytest.approx(1.358 * math.sqrt(0.02), rel=1e-3)
    # chi-squared, 9 degrees, 0.95: 16.919; a normal exceeds 1.645 as often
    assert psi_threshold(100, 100, 10, 1.645) == pytest.approx(16.919 * 0.02, rel=5e-3)


def test_chance_exceeds_thresholds_about_as_often_as_they_say() -> None:
    draw = random.Random(7)
    exceeded = [0, 0]
    for _ in range(150):
        one, other = ([draw.expovariate(1.0) for _ in range(200)] for _ in range(2))
        edges = quantile_edges(one)
        exceeded[0] += ks(one, other) > ks_threshold(200, 200, 0.05)
        exceeded[1] += psi(one, other, edges) > psi_threshold(200, 200, 10, 1.645)
    assert 1 <= exceeded[0] <= 18
    assert 1 <= exceeded[1] <= 20


def test_proportions_by_hand() -> None:
    # 10 of 100 against 25 of 100: pooled 0.175
    assert proportion_z(10, 100, 25, 100) == pytest.approx(0.15 / math.sqrt(0.175 * 0.825 * 0.02))
    assert proportion_z(0, 100, 0, 100) == 0
    assert proportion_z(25, 100, 10, 100) < 0


def test_a_mean_that_moves_without_any_spread_moves_infinitely_far() -> None:
    assert mean_z([1.0, 1.0], [2.0, 2.0]) == math.inf
    assert mean_z([2.0, 2.0], [1.0, 1.0]) == -math.inf
