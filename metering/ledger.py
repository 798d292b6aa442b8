"""The integer ledger: how one window of one component is divided without losing a nanojoule.

Everything here is integers (nanojoules, nanograms, nanoseconds, thousand-millionths of a currency) and pure. Whatever
is divided is divided by largest remainder, so for each component and each quantity

    meter = requests + idle + unattributed          exactly.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from metering.windows import NANO

NANOJOULES_PER_KWH = 3_600_000 * NANO
MILLION = 1_000_000
WEIGHT_SCALE = 2.0**52
"""Largest integer weight: a double's mantissa, so that scaling a float weight loses nothing that it held."""


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Divide ``total`` in proportion to non-negative weights by largest remainder; the shares add up to it.

    Raises:
        ValueError: the weights add up to nothing.

    >>> split(10, [1, 1, 1])
    [4, 3, 3]
    """
    whole = sum(weights)
    if whole <= 0:
        raise ValueError("cannot divide by weights that add up to nothing")
    if total == 0:
        return [0] * len(weights)
    parts = [divmod(total * weight, whole) for weight in weights]
    shares = [quotient for quotient, _ in parts]
    short = total - sum(shares)
    if short:
        for index in heapq.nsmallest(short, range(len(parts)), key=lambda i: (-parts[i][1], i)):
            shares[index] += 1
    return shares


def integer_weights(weights: Sequence[float]) -> list[int]:
    """Float weights as integers in the same proportions; anything not finite and positive weighs nothing."""
    clean = [weight if weight > 0 and math.isfinite(weight) else 0.0 for weight in weights]
    largest = max(clean, default=0.0)
    if largest == 0.0:
        return [0] * len(clean)
    return [int(weight / largest * WEIGHT_SCALE) for weight in clean]


@dataclass(slots=True)
class Amounts:
    """What one line of the books holds. Energy at the device, what PUE adds to it, and the carbon of both."""

    energy_nanojoules: int = 0
    overhead_nanojoules: int = 0
    operational_nanograms: int = 0
    """Of the energy and the overhead."""
    embodied_nanograms: int = 0
    unstamped_nanojoules: int = 0
    """Of the energy and the overhead, what was booked while the grid intensity was unknown: it has no grams."""
    device_nanocost: int = 0
    """Price of the devices' time, in thousand-millionths of the operator's currency."""
    electricity_nanocost: int = 0
    """Price of the energy and the overhead."""

    @property
    def columns(self) -> tuple[int, int, int, int, int, int, int]:
        return (
            self.energy_nanojoules,
            self.overhead_nanojoules,
            self.operational_nanograms,
            self.embodied_nanograms,
            self.unstamped_nanojoules,
            self.device_nanocost,
            self.electricity_nanocost,
        )

    def add(self, other: Amounts) -> None:
        self.energy_nanojoules += other.energy_nanojoules
        self.overhead_nanojoules += other.overhead_nanojoules
        self.operational_nanograms += other.operational_nanograms
        self.embodied_nanograms += other.embodied_nanograms
        self.unstamped_nanojoules += other.unstamped_nanojoules
        self.device_nanocost += other.device_nanocost
        self.electricity_nanocost += other.electricity_nanocost

    def subtract(self, other: Amounts) -> None:
        self.energy_nanojoules -= other.energy_nanojoules
        self.overhead_nanojoules -= other.overhead_nanojoules
        self.operational_nanograms -= other.operational_nanograms
        self.embodied_nanograms -= other.embodied_nanograms
        self.unstamped_nanojoules -= other.unstamped_nanojoules
        self.device_nanocost -= other.device_nanocost
        self.electricity_nanocost -= other.electricity_nanocost

    def part(self, numerator: int, denominator: int) -> Amounts:
        """The floor of a fraction of each quantity; all of it from one upwards."""
        if numerator >= denominator:
            return self.copy()
        return Amounts(*(column * numerator // denominator for column in self.columns))

    def copy(self) -> Amounts:
        return Amounts(*self.columns)

    def divide(self, weights: Sequence[int]) -> list[Amounts]:
        """Divide each quantity by the same weights."""
        return [Amounts(*row) for row in zip(*(split(column, weights) for column in self.columns), strict=True)]

    def __bool__(self) -> bool:
        return any(self.columns)


@dataclass(frozen=True, slots=True)
class ComponentWindow:
    """What is known of one component over one window when it is divided."""

    window_nanoseconds: int
    busy_nanoseconds: int
    """Time with at least one request scheduled; never above the window."""
    energy_nanojoules: int | None
    """None: the meter gave no reading for this window. No joules are then invented."""
    idle_watts: float | None = None
    pue: float = 1.0
    intensity_grams_per_kwh: float | None = None
    embodied_nanograms: int = 0
    device_nanocost: int = 0
    price_per_kwh: float | None = None


@dataclass(slots=True)
class Division:
    """One component's window, divided. ``requests`` is parallel to the weights given."""

    requests: list[Amounts]
    idle: Amounts
    unattributed: Amounts

    @property
    def total(self) -> Amounts:
        total = self.idle.copy()
        total.add(self.unattributed)
        for amounts in self.requests:
            total.add(amounts)
        return total


def idle_energy(energy: int, window: int, busy: int, idle_watts: float | None) -> int:
    """Idle share of a window's energy, in nanojoules; ``window`` and ``busy`` in nanoseconds.

    min(E, idle watts x (window - busy)); where the idle watts are unknown, E x (window - busy) / window.
    """
    away = window - busy
    if window <= 0 or away <= 0:
        return 0
    if idle_watts is None:
        return energy * away // window
    return min(energy, round(idle_watts * away))


def overhead_energy(energy: int, pue: float) -> int:
    """What the data centre adds: (PUE - 1) x energy, in nanojoules. PUE is taken to six decimals."""
    return energy * round((pue - 1.0) * MILLION) // MILLION


def operational_nanograms(energy: int, grams_per_kwh: float) -> int:
    """Carbon of an energy in nanojoules, rounded to the nanogram. Intensity is taken to the microgram per kWh.

    >>> operational_nanograms(3_600_000 * 10**9, 400.0) / 1e9
    400.0
    """
    return _per_kwh(energy, grams_per_kwh)


def electricity_nanocost(energy: int, price_per_kwh: float) -> int:
    """Price of an energy in nanojoules, rounded to the thousand-millionth. The price is taken to six decimals."""
    return _per_kwh(energy, price_per_kwh)


def _per_kwh(energy: int, rate: float) -> int:
    numerator = energy * round(rate * MILLION) * 1000
    return (numerator + NANOJOULES_PER_KWH // 2) // NANOJOULES_PER_KWH


def divide(component: ComponentWindow, weights: Sequence[int]) -> Division:
    """Divide one component's window over the requests that worked in it.

    The idle share is set aside first, the rest goes to the requests by weight. Where no request did any
    work the rest is unattributed. Overhead, operational carbon and the price of both follow the energy line by line;
    embodied carbon and the price of the device follow time: the busy part by weight, the rest with the idle line.
    """
    energy = component.energy_nanojoules or 0
    window, busy = component.window_nanoseconds, component.busy_nanoseconds
    idle = idle_energy(energy, window, busy, component.idle_watts)
    worked = sum(weights) > 0
    shares = split(energy - idle, weights) if worked else [0] * len(weights)
    lines = [*shares, idle, 0 if worked else energy - idle]

    overhead_total = overhead_energy(energy, component.pue)
    overheads = split(overhead_total, lines) if overhead_total else [0] * len(lines)
    operational = unstamped = [0] * len(lines)
    if component.intensity_grams_per_kwh is None:
        unstamped = [line + overhead for line, overhead in zip(lines, overheads, strict=True)]
    elif energy:
        operational = split(operational_nanograms(energy + overhead_total, component.intensity_grams_per_kwh), lines)

    electricity = [0] * len(lines)
    if energy and component.price_per_kwh:
        electricity = split(electricity_nanocost(energy + overhead_total, component.price_per_kwh), lines)

    def by_time(total: int) -> list[int]:
        worked_for = total * busy // window if window > 0 else 0
        parts = split(worked_for, weights) if worked else [0] * len(weights)
        return [*parts, total - worked_for, 0 if worked else worked_for]

    embodied, devices = by_time(component.embodied_nanograms), by_time(component.device_nanocost)
    columns = zip(lines, overheads, operational, embodied, unstamped, devices, electricity, strict=True)
    divided = [Amounts(*column) for column in columns]
    return Division(requests=divided[:-2], idle=divided[-2], unattributed=divided[-1])


def window_total(component: ComponentWindow) -> Amounts:
    """What a component's window amounts to before it is divided: the meter's side of the balance."""
    energy = component.energy_nanojoules or 0
    overhead = overhead_energy(energy, component.pue)
    stamped = component.intensity_grams_per_kwh is not None
    return Amounts(
        energy_nanojoules=energy,
        overhead_nanojoules=overhead,
        operational_nanograms=operational_nanograms(energy + overhead, component.intensity_grams_per_kwh or 0.0),
        embodied_nanograms=component.embodied_nanograms,
        unstamped_nanojoules=0 if stamped else energy + overhead,
        device_nanocost=component.device_nanocost,
        electricity_nanocost=electricity_nanocost(energy + overhead, component.price_per_kwh or 0.0),
    )
