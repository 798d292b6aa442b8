"""What is told of findings: once that something has moved, and once that it is back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from serving.operations.drift import Finding
from serving.operations.events import Kind

Subject = tuple[str | None, str]
"""Model, None for all of them, and what of it is watched."""


class _Moved(NamedTuple):
    upwards: bool
    times: int
    """Windows in a row."""
    told: bool


@dataclass(slots=True)
class Telling:
    """Every finding as a figure, and as an event what changes: a drift that stays would bury all other events.

    Of several statistics of one thing the worst speaks.
    """

    record: Callable[[Kind, str, str | None], object]
    """Takes an event's kind, text and model."""
    measured: Callable[[Finding], None] = lambda finding: None
    standing: Callable[[str | None, str, bool], None] = lambda model, what, moved: None
    """Takes model, what of it, and whether that was told to have moved and is not back."""
    patience: int = 1
    """Windows in a row that must have moved the same way."""
    _moved: dict[Subject, _Moved] = field(default_factory=dict)

    @property
    def any_moved(self) -> bool:
        return bool(self._moved)

    def tell(self, findings: Sequence[Finding]) -> None:
        """``findings``: of one window."""
        of: dict[Subject, list[Finding]] = {}
        for finding in findings:
            self.measured(finding)
            of.setdefault((finding.model, finding.what), []).append(finding)
        for subject, ones in of.items():
            moved = [one for one in ones if one.drifted]
            if moved:
                self._gone(subject, max(moved, key=lambda one: abs(one.value) / one.threshold))
            else:
                self._here(subject, ones[0])

    def forget(self, subjects: Iterable[Subject]) -> None:
        """What is told of these no longer holds: they have another reference, or are not seen any more."""
        for subject in subjects:
            if self._moved.pop(subject, None) is not None:
                self.standing(*subject, False)

    def forget_all(self) -> None:
        self.forget(tuple(self._moved))

    def _gone(self, subject: Subject, finding: Finding) -> None:
        upwards = finding.after > finding.before
        before = self._moved.get(subject)
        if before is None or before.upwards != upwards:
            before = _Moved(upwards, 0, told=False)
        times = before.times + 1
        told = before.told or times >= self.patience
        if told and not before.told:
            self.record("drift", finding.text, finding.model)
        self._moved[subject] = _Moved(upwards, times, told)
        self.standing(*subject, told)

    def _here(self, subject: Subject, finding: Finding) -> None:
        before = self._moved.pop(subject, None)
        if before is not None and before.told:
            self.record("drift", f"{finding.text}: back at its reference", finding.model)
        self.standing(*subject, False)
