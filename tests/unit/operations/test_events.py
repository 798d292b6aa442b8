from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.operations import json_lines
from serving.operations.events import KINDS, Event, EventLog, changes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_what_is_recorded_is_read_by_another_process_log(path: Path) -> None:
    times = iter([10.0, 20.0])
    log = EventLog(path, wall=lambda: next(times))
    first = log.record("model", "model: a -> b", "b")
    second = log.record("cap", "cap: 32\n-> 16")
    assert (
        EventLog(path).read()
        == [first, second]
        == [
            Event("model", "model: a -> b", 10.0, "b"),
            Event("cap", "cap: 32 -> 16", 20.0),
        ]
    )
    assert EventLog(path).read(since_seconds=15.0) == [second]


def test_nothing_recorded_is_no_events(path: Path) -> None:
    assert EventLog(path).read() == []


def test_a_damaged_line_is_passed_over(path: Path) -> None:
    log = EventLog(path)
    log.record("config", "x")
    with path.open("ab") as file:
        file.write(b'{"half": \n[]\nnull\n\xff\n')
    log.record("config", "y")
    assert [event.text for event in log.read()] == ["x", "y"]


def test_an_unknown_kind_is_refused_by_name(path: Path) -> None:
    with pytest.raises(ValueError, match="'weather' is no kind of event; there are model, config"):
        EventLog(path).record("weather", "rain")  # type: ignore[arg-type]


def test_a_long_log_is_read_from_its_end(path: Path) -> None:
    log = EventLog(path)
    for number in range(6):
        log.record("config", f"{number} " + "x" * 100_000)
    assert [event.text[0] for event in log.read()] == ["4", "5"]


def test_changes_name_the_setting_with_both_values() -> None:
    before = {"admission": {"max_concurrency": 32, "max_queue": 256}, "zone": "FRA"}
    after = {"admission": {"max_concurrency": 16, "max_queue": 256}, "zone": "DEU"}
    assert changes("config", before, after) == ["admission.max_concurrency: 32 -> 16", "zone: FRA -> DEU"]
    assert changes("intensity_source", "a", "b") == ["intensity_source: a -> b"]


settings = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(), lambda inner: st.dictionaries(st.text(max_size=3), inner)
)


@given(settings, settings)
def test_there_are_changes_exactly_where_settings_differ(before: object, after: object) -> None:
    assert changes("config", before, before) == []
    same = before == after or _without_nones(before) == _without_nones(after)
    assert (changes("config", before, after) == []) == same


def _without_nones(value: object) -> object:
    # an absent setting and one that is None are the same
    if not isinstance(value, dict):
        return value
    return {key: inner for key, held in value.items() if (inner := _without_nones(held)) is not None}


def test_all_kinds_can_be_recorded(path: Path) -> None:
    log = EventLog(path)
    for kind in KINDS:
        log.record(kind, kind)
    assert {event.kind for event in log.read()} == set(KINDS)


def test_a_log_that_has_grown_is_put_aside_and_its_end_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.jsonl"
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "events.jsonl"
    path.symlink_to(kept)
    monkeypatch.setattr(json_lines, "_MOST_BYTES", 1_000)
    log = EventLog(path, wall=lambda: 1.0)
    for number in range(100):
        log.record("cap", f"cap: {number} -> {number + 1}")
    found = [event.text for event in EventLog(path).read()]
    assert found[-1] == "cap: 99 -> 100"
    assert 10 < len(found) < 50
    assert found == [f"cap: {number} -> {number + 1}" for number in range(100 - len(found), 100)]
    assert {file.name for file in tmp_path.iterdir()} == {"run", "kept.jsonl", "kept.jsonl.old"}
    assert path.is_symlink()
