"""Differences of cumulative counters: gaps and resets are visible and never turn into joules."""

from __future__ import annotations

from metering.power.base import Boundary, Component, ComponentReading
from metering.sampling import Counter, read_all

GPU = Component("gpu", Boundary.ACCELERATOR)


def follow(*readings: ComponentReading | None) -> list[tuple[int | None, int, bool]]:
    counter = Counter(GPU)
    counter.start(readings[0])
    samples = [counter.advance(reading, "away") for reading in readings[1:]]
    return [(sample.nanojoules, sample.recovered_nanojoules, sample.reset) for sample in samples]


def test_energy_is_the_difference_of_two_readings():
    assert follow(ComponentReading(5), ComponentReading(12)) == [(7, 0, False)]


def test_a_new_epoch_is_a_gap_even_where_the_counter_is_higher():
    assert follow(ComponentReading(5), ComponentReading(12, epoch=1), ComponentReading(13, epoch=1)) == [
        (None, 0, True),
        (1, 0, False),
    ]


def test_a_counter_that_fell_is_a_gap():
    assert follow(ComponentReading(5), ComponentReading(4), ComponentReading(6)) == [(None, 0, True), (2, 0, False)]


def test_what_was_drawn_across_a_gap_is_recovered_once():
    assert follow(ComponentReading(5), None, None, ComponentReading(20), ComponentReading(21)) == [
        (None, 0, False),
        (None, 0, False),
        (None, 15, False),
        (1, 0, False),
    ]


def test_a_new_epoch_after_a_gap_recovers_nothing():
    assert follow(ComponentReading(5), None, ComponentReading(20, epoch=1)) == [(None, 0, False), (None, 0, True)]


def test_a_meter_that_comes_up_late_has_no_joules_for_its_first_window():
    assert follow(None, ComponentReading(20), ComponentReading(22)) == [(None, 0, False), (2, 0, False)]


def test_a_failing_meter_takes_only_its_own_components_with_it(world):
    readings = read_all([world.script([None]), world.constant(1.0)], 1.0)
    assert readings.missing == {"gpu": "the meter is away"}
    assert set(readings.components) == {"gpu", "host"}
    assert readings.failures == 1
