"""The history: sums that survive a restart, bounded, and refused where they are not ours."""

from __future__ import annotations

import sqlite3
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.errors import BadInput
from metering.history import (
    SCHEMA_VERSION,
    History,
    HistoryStore,
    HistoryUnavailable,
    NodeKey,
    NodeTotals,
    ServedKey,
    ServedTotals,
    Usage,
    UsageKey,
    parse_since,
)

KEY = UsageKey(10, "m", "t", "modelled", "idle_aware", "DEU", "codecarbon 2023", "average")
NANO_LARGE = 8_000_000_000_000_000_000


def rows(minute: int = 10, joules: int = 5, **served: int) -> History:
    key = UsageKey(minute, *(getattr(KEY, column.name) for column in fields(UsageKey)[1:]))
    return History(
        {key: Usage(accelerator_nanojoules=joules, flops_prefill=0.5, tokens_decode=3)},
        {ServedKey(minute, "m", "t"): ServedTotals(**(served or {"requests": 1}))},
        {NodeKey(minute, "gpu", "accelerator", "modelled", "idle_aware"): NodeTotals(metered_nanojoules=joules)},
    )


def test_what_was_written_is_read_by_another_process_of_the_same_file(tmp_path: Path) -> None:
    HistoryStore(tmp_path / "folder" / "h.sqlite3").add(rows())
    assert HistoryStore(tmp_path / "folder" / "h.sqlite3").read(0) == rows()


def test_rows_of_the_same_minute_add_up_and_others_stay_apart(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "h")
    store.add(rows(joules=5))
    store.add(rows(joules=7))
    marginal = UsageKey(10, "m", "t", "modelled", "idle_aware", "DEU", "watttime", "marginal")
    store.add(History({marginal: Usage(accelerator_nanojoules=100)}))
    usage = store.read(0).usage
    assert usage[KEY].accelerator_nanojoules == 12
    assert usage[KEY].tokens_decode == 6
    assert usage[marginal].accelerator_nanojoules == 100


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=6))
def test_a_file_holds_the_sum_of_what_it_was_given_to_the_nanojoule(joules: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = HistoryStore(Path(folder) / "h")
        for each in joules:
            store.add(rows(joules=each))
        assert store.read(0).usage[KEY].accelerator_nanojoules == sum(joules)


def test_a_period_holds_the_minutes_that_began_in_it(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "h")
    for minute in (9, 10, 11, 12):
        store.add(rows(minute))
    assert {key.minute for key in store.read(10 * 60, 12 * 60).usage} == {10, 11}
    assert {key.minute for key in store.read(10 * 60 + 1, 11 * 60 + 1).usage} == {11}


def test_old_minutes_are_forgotten(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "h")
    store.add(rows(9))
    store.add(rows(10))
    assert store.forget(10 * 60) == 3
    assert store.read(0) == rows(10)


def test_rows_that_do_not_fit_are_refused_whole(tmp_path: Path) -> None:
    store = HistoryStore(tmp_path / "h")
    store.add(rows(joules=1))
    too_much = rows(joules=2)
    too_much.served[ServedKey(10, "m", "t")].requests = 2**64
    with pytest.raises(HistoryUnavailable, match="cannot write"):
        store.add(too_much)
    assert store.read(0).usage[KEY].accelerator_nanojoules == 1


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be one" * 40, b"\x00" * 4096])
def test_a_file_of_something_else_is_neither_read_nor_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "h"
    path.write_bytes(content)
    with pytest.raises(HistoryUnavailable, match="h"):
        HistoryStore(path).read(0)
    with pytest.raises(HistoryUnavailable, match="h"):
        HistoryStore(path).add(rows())
    assert path.read_bytes() == content


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_a_database_of_another_make_or_version_is_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "h"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE usage (mine TEXT)")
        database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(HistoryUnavailable, match="another file"):
        HistoryStore(path).add(rows())


def test_a_file_of_the_first_version_is_read_as_it_is_and_extended_by_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "h"
    store = HistoryStore(path)
    store.add(rows(9, joules=7))
    with sqlite3.connect(path) as database:
        later = (
            "device_nanocost",
            "electricity_nanocost",
            "device_priced_seconds",
            "electricity_priced_seconds",
            "unreserved_seconds",
        )
        for column in later:
            database.execute(f"ALTER TABLE usage DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 1")
    database.close()
    assert store.read(0) == rows(9, joules=7)
    store.add(rows(10, joules=1))
    found = store.read(0)
    assert sum(usage.accelerator_nanojoules for usage in found.usage.values()) == 8
    assert {usage.device_nanocost for usage in found.usage.values()} == {0}


def test_no_file_and_no_folder_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HistoryUnavailable, match="--store"):
        HistoryStore(tmp_path / "none").read(0)
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryUnavailable, match="cannot write"):
        HistoryStore(tmp_path / "file" / "h").add(rows())


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("24h", 86400), ("7d", 604800), ("0.5d", 43200)])
def test_periods_count_back_from_now(text: str, seconds: float) -> None:
    assert parse_since(text, 1e9) == 1e9 - seconds


def test_a_date_with_its_zone_is_a_period() -> None:
    assert parse_since("2001-09-09T01:46:39+00:00", 1e9) == 1e9 - 1


@pytest.mark.parametrize("text", ["", "d", "-3d", "soon", "3y", "2101-01-01"])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_since(text, 1e9)
