"""Integer division without loss, and the order in which a window is divided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.idle import IdleBook, IdlePolicy
from metering.ledger import (
    Amounts,
    ComponentWindow,
    divide,
    idle_energy,
    integer_weights,
    operational_nanograms,
    overhead_energy,
    split,
    window_total,
)

SECOND = 10**9
weights = st.lists(st.integers(0, 10**18), min_size=1, max_size=40).filter(lambda w: sum(w) > 0)
floats = st.lists(st.floats(0, 1e300), max_size=20)


@given(st.integers(0, 10**20), weights)
def test_split_adds_up_and_is_within_one_of_the_exact_share(total, parts):
    shares = split(total, parts)
    assert sum(shares) == total
    whole = sum(parts)
    assert all(abs(share * whole - total * weight) < whole for share, weight in zip(shares, parts, strict=True))


def test_split_gives_the_remainder_to_the_largest_fractions():
    assert split(10, [2, 3, 2]) == [3, 4, 3]
    assert split(100, [1, 1, 1]) == [34, 33, 33]


def test_split_by_nothing_is_refused():
    with pytest.raises(ValueError, match="add up to nothing"):
        split(5, [0, 0])


def test_integer_weights_keep_proportions_and_drop_nonsense():
    assert integer_weights([1.0, 2.0, float("nan"), -3.0, float("inf")])[0] * 2 == integer_weights([1.0, 2.0])[1]
    assert integer_weights([float("nan"), 0.0]) == [0, 0]


@given(
    energy=st.integers(0, 10**15),
    window=st.integers(1, 10**11),
    busy_share=st.floats(0, 1),
    idle_watts=st.one_of(st.none(), st.floats(0, 1e4)),
    pue=st.floats(1, 3),
    intensity=st.one_of(st.none(), st.floats(0, 2000)),
    embodied=st.integers(0, 10**12),
    device_cost=st.integers(0, 10**12),
    price=st.one_of(st.none(), st.floats(0, 10)),
    float_weights=floats,
)
def test_a_division_adds_up_to_the_window(
    energy, window, busy_share, idle_watts, pue, intensity, embodied, device_cost, price, float_weights
):
    busy = min(window, int(window * busy_share))
    known = ComponentWindow(window, busy, energy, idle_watts, pue, intensity, embodied, device_cost, price)
    division = divide(known, integer_weights(float_weights))
    assert division.total == window_total(known)
    assert len(division.requests) == len(float_weights)


def test_a_gap_divides_no_joules_and_still_accrues_embodied_carbon():
    division = divide(ComponentWindow(SECOND, SECOND, None, 40.0, 1.5, 400.0, 1000), [1, 1])
    assert division.total == Amounts(embodied_nanograms=1000)


def test_idle_never_exceeds_what_was_metered():
    assert idle_energy(5, SECOND, 0, 100.0) == 5
    assert idle_energy(10**12, SECOND, SECOND // 4, 100.0) == 75 * SECOND
    assert idle_energy(10**12, SECOND, SECOND // 4, None) == 750 * SECOND


def test_overhead_and_carbon_of_a_kilowatt_hour():
    kwh = 3_600_000 * SECOND
    assert overhead_energy(kwh, 1.09) == kwh * 9 // 100
    assert operational_nanograms(kwh, 237.6) == 237_600_000_000


def test_the_price_of_a_kilowatt_hour_and_of_its_overhead():
    kwh = 3_600_000 * SECOND
    known = ComponentWindow(SECOND, SECOND, kwh, pue=1.5, price_per_kwh=0.3)
    assert window_total(known).electricity_nanocost == 450_000_000
    assert [line.electricity_nanocost for line in divide(known, [2, 1]).requests] == [300_000_000, 150_000_000]


def test_the_price_of_a_device_follows_its_time_and_the_idle_part_is_not_the_requests():
    division = divide(ComponentWindow(SECOND, SECOND // 4, None, device_nanocost=1000), [3, 2])
    assert [line.device_nanocost for line in division.requests] == [150, 100]
    assert division.idle.device_nanocost == 750


def book(policy: IdlePolicy) -> IdleBook:
    return IdleBook(policy, 10.0)


def test_none_keeps_idle_with_the_node():
    kept = book(IdlePolicy.NONE)
    assert kept.share(Amounts(100), SECOND, [1.0], [1.0]) == [Amounts()]
    assert kept.node == Amounts(100)


def test_reserved_carries_and_gives_out_by_busy_time():
    kept = book(IdlePolicy.RESERVED)
    assert kept.share(Amounts(100), 0, [], []) == []
    assert kept.carried == Amounts(100)
    assert kept.share(Amounts(100), SECOND, [3.0, 1.0], [0.0, 9.0]) == [Amounts(15), Amounts(5)]
    assert kept.carried == Amounts(180)
    assert kept.share(Amounts(0), 10 * SECOND, [1.0], [1.0]) == [Amounts(180)]
    assert kept.carried == Amounts()


def test_by_flops_without_flops_goes_by_time():
    assert book(IdlePolicy.BY_FLOPS).share(Amounts(100), SECOND, [1.0, 3.0], [0.0, 0.0]) == [Amounts(25), Amounts(75)]


@given(
    policy=st.sampled_from(IdlePolicy),
    idles=st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 20 * SECOND), floats), max_size=20),
)
def test_idle_that_is_booked_is_shared_kept_or_carried(policy, idles):
    kept = book(policy)
    shared = Amounts()
    for energy, busy, seconds in idles:
        for amounts in kept.share(Amounts(energy, energy // 9, 7), busy, seconds, seconds):
            shared.add(amounts)
    rest = kept.booked.copy()
    for line in (shared, kept.node, kept.carried):
        rest.subtract(line)
    assert not rest
    assert kept.shared == shared
