"""Thresholds keep the budget, say nothing without labels, and tighten at once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.calibration import (
    NOTHING,
    Calibration,
    Calibrator,
    Label,
    binomial_tail,
    blended_threshold,
    conformal_threshold,
    ratio_threshold,
    shipped_calibration,
    threshold_for,
    wilson,
)

LABELS = st.lists(st.builds(Label, st.floats(0, 1), st.booleans()), max_size=120)


def simulated(n: int, seed: int) -> list[Label]:
    """Scores that are probabilities of being right."""
    rng = random.Random(seed)
    return [Label(score, rng.random() < score) for score in (rng.random() ** 0.3 for _ in range(n))]


@given(LABELS, st.floats(0.01, 0.5))
def test_conformal_threshold_fulfils_its_formula(labels: list[Label], max_wrong: float) -> None:
    threshold = conformal_threshold(labels, max_wrong)
    n = len(labels)
    if threshold < NOTHING:
        risk = sum(not label.right and label.score > threshold for label in labels) / n
        assert n / (n + 1) * risk + 1 / (n + 1) <= max_wrong + 1e-9


@pytest.mark.parametrize(("max_wrong", "needed"), [(0.01, 99), (0.02, 49), (0.05, 19)])
def test_nothing_is_served_with_one_label_too_few(max_wrong: float, needed: int) -> None:
    right = [Label(0.9, True)] * needed
    assert conformal_threshold(right[1:], max_wrong) == NOTHING
    assert conformal_threshold(right, max_wrong) < 0.9


@given(LABELS)
def test_a_smaller_budget_never_serves_more(labels: list[Label]) -> None:
    thresholds = [threshold_for(labels, budget) for budget in (0.01, 0.05, 0.2)]
    assert thresholds == sorted(thresholds, reverse=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_wrong_of_served_passes_the_exact_test_at_the_threshold(seed: int) -> None:
    labels = simulated(800, seed)
    threshold = ratio_threshold(labels, 0.1)
    served = [label for label in labels if label.score > threshold]
    if served:
        wrong = sum(not label.right for label in served)
        assert binomial_tail(wrong, len(served), 0.1) <= 0.025


def test_fresh_traffic_keeps_the_budget_nearly_always() -> None:
    broken = 0
    for seed in range(60):
        threshold = threshold_for(simulated(1000, seed), 0.1)
        served = [label for label in simulated(20_000, 1000 + seed) if label.score > threshold]
        broken += bool(served) and sum(not label.right for label in served) > 0.1 * len(served)
    assert broken <= 6


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_holds_the_rate(count: int, extra: int) -> None:
    total = count + extra
    low, high = wilson(count, total)
    assert 0 <= low <= high <= 1
    if total:
        assert low <= count / total <= high


def test_binomial_tail_is_the_distribution_function() -> None:
    assert binomial_tail(0, 10, 0.1) == pytest.approx(0.9**10)
    assert binomial_tail(10, 10, 0.3) == pytest.approx(1.0)
    assert binomial_tail(2, 5, 0.5) == pytest.approx(0.5)


def test_shipped_calibration_says_what_it_is() -> None:
    shipped = shipped_calibration()
    assert shipped.note == "uncalibrated on your traffic"
    assert 0 < threshold_for(shipped.labels, 0.05) < NOTHING


def test_a_run_of_wrong_answers_tightens_at_once() -> None:
    calibrator = Calibrator(shipped_calibration(), 0.05, refit_every=10**9)
    before = calibrator.threshold
    score = (before + 1) / 2
    for _ in range(3):
        calibrator.observe(score, right=False)
    assert calibrator.tightened == 1
    assert calibrator.threshold >= score > before


def test_what_was_served_wrongly_is_still_reported_after_tightening() -> None:
    calibrator = Calibrator(shipped_calibration(), 0.05, refit_every=10**9)
    for _ in range(3):
        calibrator.observe((calibrator.threshold + 1) / 2, right=False, served=True)
    assert calibrator.tightened == 3
    assert calibrator.wrong_of_served() == (3, 3)


def test_what_an_older_threshold_served_does_not_tighten_a_second_time() -> None:
    calibrator = Calibrator(shipped_calibration(), 0.01, refit_every=10**9)
    calibrator.observe(0.99, right=False, served=True)
    for _ in range(30):
        calibrator.observe(0.995, right=True, served=True)
    calibrator.observe(0.991, right=False, served=True)
    # two of 32: the lower bound is within the budget only where the first is left out
    assert calibrator.tightened == 1


def test_right_answers_do_not_tighten() -> None:
    calibrator = Calibrator(shipped_calibration(), 0.05)
    for _ in range(50):
        calibrator.observe(0.99, right=True)
    assert calibrator.tightened == 0


def test_live_labels_take_over_and_say_so() -> None:
    calibrator = Calibrator(shipped_calibration(), 0.1, least_live=100)
    assert not calibrator.calibrated
    for label in simulated(600, 1):
        calibrator.observe(label.score, label.right, served=False)
    assert calibrator.note == "calibrated on your traffic"
    live, shipped = calibrator.live_labels, shipped_calibration().labels
    assert calibrator.threshold == min(threshold_for(live, 0.1), blended_threshold(live, shipped, 0.1))


@pytest.mark.parametrize(
    ("data", "named"),
    [({}, "scores"), ({"scores": [1.5], "right": [1]}, "scores[0]"), ({"scores": [0.5], "right": []}, "same length")],
)
def test_a_broken_calibration_is_named(data: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match="calibration") as caught:
        Calibration.from_dict(data)
    assert named in str(caught.value)


def test_a_budget_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="max_wrong"):
        Calibrator(shipped_calibration(), 2.0)


def test_a_few_good_labels_of_the_traffic_serve_where_the_exact_test_would_not() -> None:
    shipped = [Label(0.9, True)] * 400 + [Label(0.5, False)] * 100
    live = [Label(0.9, True)] * 40 + [Label(0.5, False)] * 40
    assert threshold_for(live, 0.02) == NOTHING
    assert 0.5 <= blended_threshold(live, shipped, 0.02) < 0.9


def test_labels_of_the_traffic_outweigh_the_shipped_ones() -> None:
    shipped = [Label(0.9, True)] * 4000
    live = [Label(0.9, True)] * 40 + [Label(0.95, False)] * 4
    assert blended_threshold([], shipped, 0.02) < 0.9
    assert blended_threshold(live, shipped, 0.02) >= 0.95


@given(LABELS, LABELS)
def test_a_smaller_budget_never_serves_more_of_a_blend(live: list[Label], shipped: list[Label]) -> None:
    thresholds = [blended_threshold(live, shipped, budget) for budget in (0.01, 0.05, 0.2)]
    assert thresholds == sorted(thresholds, reverse=True)


def test_a_calibration_file_is_blended_with_the_shipped_one() -> None:
    own = Calibration((Label(0.97, True),) * 60, "log", True)
    assert Calibrator(own, 0.02).threshold == NOTHING
    assert Calibrator(own, 0.02, prior=shipped_calibration()).threshold < 0.97
