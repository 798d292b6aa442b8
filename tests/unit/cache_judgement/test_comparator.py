"""What a comparison that errs says about wrong answers."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from cache.calibration import wilson
from cache.comparator import LEAST_TRIALS, ComparatorError


def measured(alarms: int, same: int, misses: int = 0, different: int = 0) -> ComparatorError:
    error = ComparatorError()
    for number in range(same):
        error.observe("same", number >= alarms)
    for number in range(different):
        error.observe("different", number < misses)
    return error


@given(st.integers(0, 50), st.integers(0, 50))
def test_without_a_measurement_every_difference_is_a_wrong_answer(wrong: int, more: int) -> None:
    error = measured(LEAST_TRIALS - 1, LEAST_TRIALS - 1)
    estimate, low, high = error.wrong(wrong, wrong + more)
    assert (low, high) == wilson(wrong, wrong + more)
    assert math.isnan(estimate) if wrong + more == 0 else estimate == wrong / (wrong + more)
    assert error.differing_allowed(0.02) == 0.02


def test_differences_that_sampling_explains_are_no_wrong_answers() -> None:
    error = measured(alarms=100, same=1000)
    estimate, low, high = error.wrong(10, 100)
    assert estimate == 0.0
    assert low == 0.0
    assert high < wilson(10, 100)[1]


def test_answers_that_look_alike_hide_wrong_ones() -> None:
    estimate, _, high = measured(0, 100, misses=50, different=100).wrong(5, 100)
    assert math.isclose(estimate, 0.1)
    assert high > wilson(5, 100)[1]


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 60), st.integers(1, 60))
def test_bounds_hold_the_estimate_within_a_share(alarms: int, misses: int, wrong: int, more: int) -> None:
    estimate, low, high = measured(alarms, 200, misses, 200).wrong(wrong, wrong + more)
    assert 0.0 <= low <= high <= 1.0
    if alarms + misses < 200:
        assert low - 1e-12 <= estimate <= high + 1e-12


def test_the_true_share_is_found_again() -> None:
    rng, error = random.Random(3), ComparatorError(window=20_000)
    for _ in range(20_000):
        error.observe("same", rng.random() >= 0.08)
        error.observe("different", rng.random() < 0.03)
    differing = sum(rng.random() < (0.97 if rng.random() < 0.05 else 0.08) for _ in range(20_000))
    estimate, low, high = error.wrong(differing, 20_000)
    assert abs(estimate - 0.05) < 0.01
    assert low <= 0.05 <= high


def test_a_budget_allows_for_false_alarms_but_never_more_than_their_lower_bound() -> None:
    allowed = measured(alarms=100, same=1000).differing_allowed(0.02)
    assert 0.02 < allowed < 0.1 + 0.02
