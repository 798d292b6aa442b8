from __future__ import annotations

import pytest

from serving.operations.drift import Finding
from serving.operations.drift_telling import Telling


def found(value: float, after: float = 2.0, statistic: str = "z", what: str = "MFU") -> Finding:
    return Finding(what, statistic, value, 1.0, 1.0, after, drifted=value > 1, model="m")


class Told:
    def __init__(self, patience: int = 1) -> None:
        self.events: list[str] = []
        self.standing: dict[tuple[str | None, str], bool] = {}
        self.shown: list[Finding] = []
        self.telling = Telling(self._record, self.shown.append, self._stand, patience)

    def _record(self, kind: str, text: str, model: str | None) -> None:
        self.events.append(f"{kind} {model} {text}")

    def _stand(self, model: str | None, what: str, moved: bool) -> None:
        self.standing[model, what] = moved


def test_a_drift_that_stays_is_one_event_and_stands_until_it_is_back() -> None:
    told = Told()
    for _ in range(5):
        told.telling.tell([found(3.0)])
        assert told.standing == {("m", "MFU"): True}
    assert len(told.events) == 1
    told.telling.tell([found(0.5)])
    assert told.standing == {("m", "MFU"): False}
    assert [event.endswith("back at its reference") for event in told.events] == [False, True]
    assert len(told.shown) == 6, "each finding is a figure"


def test_the_worst_statistic_of_one_thing_speaks_for_it() -> None:
    told = Told()
    told.telling.tell([found(2.0, statistic="PSI"), found(5.0, statistic="KS"), found(0.1, what="hit ratio")])
    (event,) = told.events
    assert "KS 5" in event
    assert told.standing == {("m", "MFU"): True, ("m", "hit ratio"): False}


def test_with_patience_only_what_moves_the_same_way_in_a_row_is_told() -> None:
    told = Told(patience=2)
    for value, after in ((3.0, 2.0), (3.0, 0.5), (0.5, 1.0), (3.0, 2.0), (0.5, 1.0)):
        told.telling.tell([found(value, after)])
        assert told.standing == {("m", "MFU"): False}
    assert told.events == []
    for _ in range(2):
        told.telling.tell([found(3.0, 0.5)])
    assert len(told.events) == 1
    assert told.standing == {("m", "MFU"): True}


def test_the_other_direction_is_another_drift() -> None:
    told = Told()
    for after in (2.0, 0.5, 2.0):
        told.telling.tell([found(3.0, after)])
    assert len(told.events) == 3


@pytest.mark.parametrize("every", [False, True])
def test_what_has_another_reference_stands_no_longer_and_is_told_anew(every: bool) -> None:
    told = Told()
    told.telling.tell([found(3.0)])
    told.telling.forget([])
    assert told.telling.any_moved
    told.telling.forget_all() if every else told.telling.forget([("m", "MFU")])
    assert told.standing == {("m", "MFU"): False}
    assert len(told.events) == 1, "it is not back: it is not looked at"
    told.telling.tell([found(3.0)])
    assert len(told.events) == 2
