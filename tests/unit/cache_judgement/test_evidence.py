"""What verification teaches, and that a restart teaches it again."""

from __future__ import annotations

import random

from cache.calibration import Calibrator, shipped_calibration
from cache.evidence import Evidence, VerifiedLabel


def evidence() -> Evidence:
    return Evidence(Calibrator(shipped_calibration(), 0.05))


def traffic(count: int) -> list[VerifiedLabel]:
    rng = random.Random(3)
    scores = [rng.random() for _ in range(count)]
    return [VerifiedLabel("served" if score > 0.5 else "refused", score, rng.random() < score) for score in scores]


def test_the_same_labels_after_a_restart_are_the_same_threshold() -> None:
    before, after = evidence(), evidence()
    labels = traffic(120)
    for label in labels:
        before.add(label)
    assert not before.calibrator.calibrated
    assert before.calibrator.threshold > evidence().calibrator.threshold
    after.replay(labels)
    assert after.calibrator.threshold == before.calibrator.threshold
    assert after.calibrator.wrong_of_served() == before.calibrator.wrong_of_served() != (0, 0)


def test_comparisons_of_a_known_truth_widen_the_budget_for_differing_answers() -> None:
    found = evidence()
    found.replay(VerifiedLabel("same", 0.0, number % 4 > 0) for number in range(40))
    assert found.comparator.false_alarms == (10, 40)
    assert found.calibrator.differing_allowed(0.05) > 0.1
    assert found.calibrator.live_labels == ()


def test_mistakes_of_the_grey_zone_are_not_the_thresholds() -> None:
    found = evidence()
    found.replay([VerifiedLabel("grey", 0.4, False)] * 10)
    assert found.calibrator.wrong_of_served() == (0, 0)
    assert found.calibrator.tightened == 0
    assert len(found.calibrator.live_labels) == 10


def test_what_is_forgotten_is_neither_label_nor_comparison() -> None:
    found = evidence()
    found.replay([*traffic(10), VerifiedLabel("different", 0.0, True)])
    found.forget()
    assert found.calibrator.live_labels == ()
    assert found.calibrator.wrong_of_served() == (0, 0)
    assert found.comparator.misses == (0, 0)
