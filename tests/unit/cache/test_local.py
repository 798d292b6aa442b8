from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cache.local import LocalTier
from tests.unit.cache.store_contract import address, answer


def tier(**changes: Any) -> LocalTier:
    return LocalTier(**{"entries": 10, "size_bytes": 1_000_000, "ttl_seconds": 60.0, **changes})


def exact(number: int) -> str:
    return address(number).exact


def test_what_was_put_is_found_until_its_time_in_process_ends() -> None:
    local = tier()
    local.put(answer(address(1)), 1000.0)
    assert local.get(exact(1), 1059.9) == answer(address(1))
    assert local.get(exact(1), 1060.0) is None
    assert len(local) == 0


def test_reading_does_not_prolong_and_the_entrys_own_end_comes_first() -> None:
    local = tier()
    local.put(answer(address(1), expires_seconds=1030.0), 1000.0)
    assert local.get(exact(1), 1029.0) is not None
    assert local.get(exact(1), 1030.0) is None


def test_the_least_recently_used_goes_first() -> None:
    local = tier(entries=2)
    local.put(answer(address(1)), 1000.0)
    local.put(answer(address(2)), 1000.0)
    local.get(exact(1), 1001.0)
    local.put(answer(address(3)), 1002.0)
    assert [local.get(exact(number), 1003.0) is not None for number in (1, 2, 3)] == [True, False, True]


def test_an_answer_larger_than_the_tier_is_not_kept() -> None:
    local = tier(size_bytes=2000)
    local.put(answer(address(1)), 1000.0)
    local.put(answer(address(1), body_bytes=b"x" * 2000), 1000.0)
    assert (len(local), local.bytes_used) == (0, 0)


def test_no_entries_switches_it_off() -> None:
    local = tier(entries=0)
    local.put(answer(address(1)), 1000.0)
    assert len(local) == 0


@given(st.lists(st.tuples(st.sampled_from(["put", "drop", "get"]), st.integers(0, 5), st.integers(0, 3000))))
def test_bounds_hold_and_bytes_are_those_kept(steps: list[tuple[str, int, int]]) -> None:
    local = tier(entries=3, size_bytes=6000)
    for what, number, size in steps:
        if what == "put":
            local.put(answer(address(number), body_bytes=b"x" * size), 1000.0)
        elif what == "drop":
            local.drop(exact(number))
        else:
            local.get(exact(number), 1001.0)
        kept = [local.get(exact(n), 1001.0) for n in range(6)]
        assert local.bytes_used == sum(item.size_bytes for item in kept if item)
        assert len(local) <= 3
        assert local.bytes_used <= 6000
    local.clear()
    assert (len(local), local.bytes_used) == (0, 0)
