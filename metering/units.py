"""Quantities with a unit, as people write them: ``1.5kWh``, ``400g/kWh``, ``300W``, ``125 TFLOP/s``, ``2 years``.

A quantity of the wrong dimension is refused rather than scaled. A bare number is taken in the unit that the place
declares. Scale prefixes are decimal; ``GiB`` and its kin are binary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from metering.errors import BadInput, nearest
from metering.sci import YEAR_SECONDS

JOULES_PER_KWH = 3.6e6
"""By definition: 1000 W for 3600 s."""
GRAMS_PER_POUND = 453.59237
"""International avoirdupois pound, exact since 1959."""
GRAMS_PER_KWH_PER_POUND_PER_MWH = GRAMS_PER_POUND / 1000
"""1 lb/MWh in g/kWh: WattTime's unit in ours."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """What a quantity measures; ``units`` maps each spelling to its size in ``base``."""

    name: str
    base: str
    units: Mapping[str, float]


def _with_prefixes(base: str, prefixes: str) -> dict[str, float]:
    scales = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21}
    return {base: 1.0, **{prefix + base: scales[prefix] for prefix in prefixes}}


def _dimension(name: str, base: str, units: dict[str, float]) -> Dimension:
    return Dimension(name, base, MappingProxyType(units))


_HOURS = {"Wh": 3600.0, "kWh": 3.6e6, "MWh": 3.6e9, "GWh": 3.6e12, "TWh": 3.6e15}
_MASSES = {"g": 1.0, "gCO2e": 1.0, "gCO2": 1.0, "mg": 1e-3, "kg": 1e3, "kgCO2e": 1e3, "t": 1e6, "tCO2e": 1e6,
           "lb": GRAMS_PER_POUND}  # fmt: skip
_FLOPS = _with_prefixes("FLOP", "MGTPEZ")
_BYTES = {**_with_prefixes("B", "kMGTP"), "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}

ENERGY = _dimension("energy", "J", {**_with_prefixes("J", "numkMGT"), **_HOURS})
POWER = _dimension("power", "W", _with_prefixes("W", "mkMG"))
MASS = _dimension("mass of CO2e", "g", _MASSES)
INTENSITY = _dimension(
    "carbon intensity",
    "g/kWh",
    {
        f"{mass}/{hours}": _MASSES[mass] * 3.6e6 / _HOURS[hours]
        for mass in _MASSES
        for hours in ("Wh", "kWh", "MWh", "GWh")
    },
)
TIME = _dimension(
    "time",
    "s",
    {
        "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
        "d": 86_400.0, "day": 86_400.0, "days": 86_400.0, "y": float(YEAR_SECONDS), "year": float(YEAR_SECONDS),
        "years": float(YEAR_SECONDS),
    },
)  # fmt: skip
FLOP_RATE = _dimension(
    "peak",
    "FLOP/s",
    {spelling: scale for unit, scale in _FLOPS.items() for spelling in (f"{unit}/s", f"{unit}S", f"{unit}s")},
)
BANDWIDTH = _dimension("bandwidth", "B/s", {f"{unit}/s": scale for unit, scale in _BYTES.items()})
AREA = _dimension("area", "mm2", {"mm2": 1.0, "mm²": 1.0, "cm2": 100.0, "cm²": 100.0})
COUNT = _dimension("count", "", {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12})

_QUANTITY = re.compile(r"\s*([+-]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\s\d].*)?\s*\Z")
_GROUPED = re.compile(r"[+-]?\d+(?:[_,]\d{3})*(?![\d_,])")
"""Digits in which ``_`` and ``,`` stand before threes only: elsewhere a comma may be meant as a decimal point."""


def parse_quantity(text: str | float, dimension: Dimension, *, bare_unit: str | None = None, name: str = "") -> float:
    """The quantity in the dimension's base unit.

    >>> parse_quantity("1.5kWh", ENERGY)
    5400000.0
    >>> round(parse_quantity("412.5 lb/MWh", INTENSITY), 3)
    187.107
    >>> parse_quantity("0.33 kg/kWh", INTENSITY)
    330.0

    Args:
        text: number and unit, with spaces or without; ``_`` or ``,`` may group the digits by threes.
        dimension: what it must measure.
        bare_unit: the unit of a number without one; None: a unit must be given (a count needs none).
        name: of the option, for the message.

    Raises:
        BadInput: not a number, an unknown unit, a unit of another dimension, negative, or not finite.
    """
    what = name or dimension.name
    match = _QUANTITY.match(str(text))
    example = f"as 1.5{next(iter(dimension.units))}" if dimension is not COUNT else "as 1.5e9 or 1.5B"
    if match is None:
        raise BadInput(f"{what}: {str(text)!r} is not a number with a unit of {dimension.name}, {example}")
    if {"_", ","} & set(match[1]) and not _GROUPED.match(match[1]):
        raise BadInput(
            f"{what}: {str(text)!r} has a separator that does not group digits by threes; "
            "write decimals with a point (1.5) and thousands as 1,500"
        )
    value = float(match[1].replace("_", "").replace(",", ""))
    unit = re.sub(r"\s+", "", match[2] or "")
    if not unit and dimension is not COUNT:
        if bare_unit is None:
            raise BadInput(f"{what}: {str(text)!r} has no unit, write it {example}")
        unit = bare_unit
    scale = _scale(unit, dimension)
    if scale is None:
        raise BadInput(f"{what}: {_why_not(unit, dimension)}")
    if not math.isfinite(value) or value < 0:
        raise BadInput(f"{what} must be at least 0 and finite, got {str(text)!r}")
    return value * scale


def _scale(unit: str, dimension: Dimension) -> float | None:
    """Exact spelling first: case tells milli from mega; then any case where only one unit fits."""
    if unit in dimension.units:
        return dimension.units[unit]
    folded = {scale for known, scale in dimension.units.items() if known.casefold() == unit.casefold()}
    return folded.pop() if len(folded) == 1 else None


def _why_not(unit: str, dimension: Dimension) -> str:
    for other in (ENERGY, POWER, MASS, INTENSITY, TIME, FLOP_RATE, BANDWIDTH, AREA):
        if other is not dimension and unit in other.units:
            return f"{unit!r} is a unit of {other.name}, not of {dimension.name} (as {dimension.base})"
    return f"unknown unit {unit!r} of {dimension.name}{nearest(unit, dimension.units)}"


def kwh(joules: float) -> float:
    """Joules in kilowatt hours."""
    return joules / JOULES_PER_KWH
