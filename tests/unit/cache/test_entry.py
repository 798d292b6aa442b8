from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.entry import EntryCodec, secret_for
from tests.unit.cache.store_contract import address, answer

CODEC = EntryCodec(b"k" * 32)


@given(st.binary(), st.text(), st.floats(0, 2e9))
def test_any_answer_survives(body: bytes, text: str, created: float) -> None:
    original = answer(address(1), body_bytes=body, text=text, created_seconds=created)
    assert CODEC.decode(CODEC.encode(original), address(1)) == original


def test_no_byte_can_be_changed() -> None:
    value = CODEC.encode(answer(address(1)))
    for position in range(len(value)):
        changed = bytearray(value)
        changed[position] ^= 1
        assert CODEC.decode(bytes(changed), address(1)) is None


@pytest.mark.parametrize("value", [b"", b"-", b"x" * 15, b"x" * 16, b"x" * 100, b"{}\n{}"])
def test_strange_bytes_are_no_answer(value: bytes) -> None:
    assert CODEC.decode(value, address(1)) is None


def test_an_answer_belongs_to_its_address_and_its_secret() -> None:
    value = CODEC.encode(answer(address(1)))
    assert CODEC.decode(value, address(2)) is None
    assert CODEC.decode(value, address(1, partition=2)) is None
    assert EntryCodec(b"j" * 32).decode(value, address(1)) is None


def test_the_secret_is_not_in_the_codecs_name() -> None:
    assert "kkk" not in repr(CODEC)


def test_each_purpose_has_a_key_of_its_own() -> None:
    assert secret_for("entries", b"s") != secret_for("labels", b"s")


def test_freshness_ends_at_the_end_of_life_and_after_the_greatest_age() -> None:
    entry = answer(address(1), created_seconds=100.0, expires_seconds=200.0)
    assert [entry.fresh(now) for now in (100.0, 199.9, 200.0)] == [True, True, False]
    assert [entry.fresh(now, 10) for now in (110.0, 110.1)] == [True, False]


def test_usage_is_that_of_the_original_run() -> None:
    assert answer(address(1), body_bytes=b'{"usage":{"total_tokens":3}}').usage() == {"total_tokens": 3}
    assert answer(address(1)).usage() == {}
