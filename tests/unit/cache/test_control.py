from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.control import CacheControl, Outcome, response_headers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, CacheControl()),
        ("", CacheControl()),
        ("no-cache", CacheControl(no_cache=True)),
        ("No-Store", CacheControl(no_store=True)),
        ("max-age=60", CacheControl(max_age_seconds=60)),
        ('max-age="60"', CacheControl(max_age_seconds=60)),
        ("max-age=0", CacheControl(max_age_seconds=0)),
        ("max-age=soon", CacheControl(max_age_seconds=0)),
        ("max-age=-1", CacheControl(max_age_seconds=0)),
        ("max-age", CacheControl(max_age_seconds=0)),
        ("max-age=99999999999", CacheControl(max_age_seconds=2**31)),
        ("only-if-cached, max-age=5", CacheControl(only_if_cached=True, max_age_seconds=5)),
        (" no-cache ,no-store,private", CacheControl(no_cache=True, no_store=True)),
        ("no-transform, x=1", CacheControl()),
    ],
)
def test_directives(header: str | None, expected: CacheControl) -> None:
    assert CacheControl.parse(header) == expected


@given(st.text())
def test_any_header_parses(header: str) -> None:
    CacheControl.parse(header)


def test_a_hit_tells_its_age_and_id_and_to_the_authorised_its_similarity() -> None:
    facts = {"age_seconds": 12.9, "cache_id": "id", "similarity": 0.98765}
    public = response_headers(Outcome.HIT_SEMANTIC, **facts)
    assert public == {"x-cache": "HIT-SEMANTIC", "age": "12", "x-cache-id": "id"}
    assert response_headers(Outcome.HIT_SEMANTIC, **facts, authorised=True) == {
        **public,
        "x-cache-similarity": "0.9877",
    }


def test_an_exact_hit_and_a_miss_tell_no_similarity() -> None:
    assert "x-cache-similarity" not in response_headers(Outcome.HIT_EXACT, similarity=1.0, authorised=True)
    assert response_headers(Outcome.MISS, similarity=0.9, cache_id="id", authorised=True) == {
        "x-cache": "MISS",
        "x-cache-id": "id",
    }


def test_a_bypass_tells_only_that() -> None:
    assert response_headers(Outcome.BYPASS, age_seconds=1.0, cache_id="id") == {"x-cache": "BYPASS"}


def test_a_clock_that_went_back_gives_no_negative_age() -> None:
    assert response_headers(Outcome.HIT_EXACT, age_seconds=-3.0)["age"] == "0"
