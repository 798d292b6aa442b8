"""What verification has found out, and what it teaches: the threshold, and how far the comparison can be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from cache.calibration import Calibrator
from cache.comparator import ComparatorError

Kind = Literal["served", "refused", "grey", "same", "different"]
"""A hit of the threshold's, a neighbour that it refused, one of those that the served model let through (the grey
zone), or a comparison whose truth is known (see ``cache.comparator``)."""
KINDS: tuple[Kind, ...] = get_args(Kind)
KEPT = 6000
"""Labels read back after a restart: the calibrator's window of 5,000, and room for the comparisons among them."""


@dataclass(frozen=True, slots=True)
class VerifiedLabel:
    kind: Kind
    score: float
    """0 where a known truth was compared."""
    agreed: bool

    @property
    def judged(self) -> bool:
        """The score is one of the judge's, so that a threshold can be calibrated on it."""
        return self.kind in ("served", "refused", "grey")


class Evidence:
    """Labels in the order they came; the same labels in the same order lead to the same threshold."""

    def __init__(self, calibrator: Calibrator) -> None:
        self.calibrator = calibrator
        self.comparator = ComparatorError()
        self.replayed = 0
        """Labels of an earlier run among those added."""
        calibrator.differing_allowed = self.comparator.differing_allowed

    def add(self, label: VerifiedLabel) -> None:
        if label.kind == "same" or label.kind == "different":
            self.comparator.observe(label.kind, label.agreed)
        else:
            # what the grey zone let through was not served by the threshold: its mistakes are not the threshold's
            self.calibrator.observe(label.score, label.agreed, served=label.kind == "served")

    def replay(self, labels: Iterable[VerifiedLabel]) -> None:
        """Those of an earlier run, oldest first."""
        for label in labels:
            self.add(label)
            self.replayed += 1

    def forget(self) -> None:
        """All labels go: the same ones are about to come from somewhere more complete."""
        self.calibrator.forget()
        self.comparator.forget()
        self.replayed = 0
