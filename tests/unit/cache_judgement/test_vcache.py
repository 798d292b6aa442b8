"""The per-entry policy explores first, learns its own boundary and keeps a stricter one for a smaller budget."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.vcache import VCachePolicy, explore_share, fit


def taught(max_wrong: float, boundary: float, n: int = 60) -> VCachePolicy:
    policy, rng = VCachePolicy(max_wrong, rng=random.Random(1)), random.Random(2)
    for _ in range(n):
        similarity = rng.random()
        policy.observe("e", similarity, similarity > boundary)
    return policy


def test_an_entry_with_fewer_than_six_observations_never_serves() -> None:
    policy = VCachePolicy(0.5, rng=random.Random(0))
    for _ in range(5):
        policy.observe("e", 0.9, right=True)
    assert policy.explore_share("e", 1.0) == 1.0
    assert not any(policy.serve("e", 1.0) for _ in range(50))


def test_similar_questions_are_served_and_dissimilar_ones_explored() -> None:
    policy = taught(0.05, 0.6)
    assert policy.explore_share("e", 0.99) < 0.8
    assert policy.explore_share("e", 0.2) > 0.9


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.1, 100), st.floats(0, 1), st.floats(0, 0.5))
def test_a_smaller_budget_explores_at_least_as_often(s: float, gamma: float, t: float, deviation: float) -> None:
    strict, lax = (explore_share(s, gamma, t, deviation, budget) for budget in (0.01, 0.1))
    assert 0 <= lax <= strict <= 1


def test_the_fit_finds_the_boundary() -> None:
    rng = random.Random(3)
    points = [(s, s > 0.7) for s in (rng.random() for _ in range(300))]
    gamma, t, deviation = fit(points)
    assert gamma > 10
    assert t == pytest.approx(0.7, abs=0.05)
    assert 0 < deviation < 0.2


def test_a_disagreeing_answer_is_inserted() -> None:
    policy = VCachePolicy(0.02)
    assert policy.observe("e", 0.9, right=False)
    assert not policy.observe("e", 0.9, right=True)


def test_old_entries_are_forgotten() -> None:
    policy = VCachePolicy(0.02, entries=2)
    for name in "abc":
        for _ in range(8):
            policy.observe(name, 0.95, right=True)
    assert policy.explore_share("a", 1.0) == 1.0
    assert policy.explore_share("c", 1.0) < 1.0
