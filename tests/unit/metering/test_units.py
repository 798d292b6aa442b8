"""Quantities as people write them; the wrong unit is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BadInput
from metering.units import (
    AREA,
    BANDWIDTH,
    COUNT,
    ENERGY,
    FLOP_RATE,
    INTENSITY,
    MASS,
    POWER,
    TIME,
    Dimension,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("1.5kWh", ENERGY, 5.4e6),
        ("1.5 kWh", ENERGY, 5.4e6),
        ("1 MJ", ENERGY, 1e6),
        ("3 mJ", ENERGY, 3e-3),
        ("300W", POWER, 300.0),
        ("0.3 kw", POWER, 300.0),
        ("400g/kWh", INTENSITY, 400.0),
        ("400 gCO2e/kWh", INTENSITY, 400.0),
        ("0.429kg/kWh", INTENSITY, 429.0),
        ("1000 lb/MWh", INTENSITY, 453.59237),
        ("125TFLOP/s", FLOP_RATE, 125e12),
        ("125 TFLOPS", FLOP_RATE, 125e12),
        ("3.35 TB/s", BANDWIDTH, 3.35e12),
        ("1GiB/s", BANDWIDTH, 2.0**30),
        ("2 years", TIME, 2 * 365 * 86400.0),
        ("164kg", MASS, 164e3),
        ("8.14cm2", AREA, 814.0),
        ("175B", COUNT, 175e9),
        ("175e9", COUNT, 175e9),
        ("1,000,000", COUNT, 1e6),
        ("12_500.5 J", ENERGY, 12_500.5),
    ],
)
def test_reads(text: str, dimension: Dimension, value: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-12)


def test_a_bare_number_takes_the_unit_of_the_place() -> None:
    assert parse_quantity("429", INTENSITY, bare_unit="g/kWh") == 429.0
    with pytest.raises(BadInput, match="has no unit"):
        parse_quantity("429", INTENSITY)


@pytest.mark.parametrize(
    ("text", "dimension", "says"),
    [
        ("300W", ENERGY, "'W' is a unit of power, not of energy"),
        ("1.5kWh", POWER, "'kWh' is a unit of energy, not of power"),
        ("400g", INTENSITY, "is a unit of mass of CO2e, not of carbon intensity"),
        ("5 kWhh", ENERGY, "unknown unit 'kWhh' of energy; nearest: kWh"),
        ("lots", ENERGY, "is not a number"),
        ("", ENERGY, "is not a number"),
        ("-3W", POWER, "at least 0"),
        ("1e999W", POWER, "finite"),
        ("nanW", POWER, "is not a number"),
        ("3 MW4", POWER, "unknown unit"),
        ("1,5kWh", ENERGY, "'1,5kWh' has a separator .* write decimals with a point"),
        ("1_5kWh", ENERGY, "'1_5kWh' has a separator"),
        ("1,0000", COUNT, "has a separator"),
        ("1,000,", COUNT, "has a separator"),
        ("1,,000", COUNT, "has a separator"),
    ],
)
def test_refuses(text: str, dimension: Dimension, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_quantity(text, dimension)


def test_case_tells_milli_from_mega() -> None:
    assert parse_quantity("1mW", POWER) == 1e-3
    assert parse_quantity("1MW", POWER) == 1e6


@given(st.floats(0, 1e12), st.sampled_from(["J", "kJ", "Wh", "kWh", "MWh"]))
def test_a_printed_quantity_reads_back(value: float, unit: str) -> None:
    assert parse_quantity(f"{value!r}{unit}", ENERGY) == value * ENERGY.units[unit]
