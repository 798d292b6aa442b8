"""The 4Ms of Patterson et al. 2022: a saving factored into Model, Machine, Mechanization (PUE) and Map (location).

    grams = work x energy per work x PUE x intensity

so the ratio of two runs is the product of four ratios, and nothing is left over.
"""

from __future__ import annotations

from dataclasses import dataclass

from metering.errors import BadInput


@dataclass(frozen=True, slots=True)
class Footing:
    """What decides a run's operational carbon. Both runs must have served the same demand."""

    flops: float
    """Executed for the demand: what model, caching and batching decide."""
    device_joules: float
    """At the devices, before PUE."""
    pue: float
    intensity_grams_per_kwh: float

    @property
    def grams(self) -> float:
        return self.device_joules * self.pue * self.intensity_grams_per_kwh / 3.6e6


@dataclass(frozen=True, slots=True)
class Factors:
    """How many times less the second run emitted, by cause; above 1 is a saving."""

    model: float
    """FLOPs for the same demand."""
    machine: float
    """Joules per FLOP."""
    mechanization: float
    """PUE."""
    map: float
    """Grid intensity."""

    @property
    def total(self) -> float:
        return self.model * self.machine * self.mechanization * self.map


def factor(before: Footing, after: Footing) -> Factors:
    """The saving from ``before`` to ``after``; ``total`` is the ratio of their grams.

    >>> saving = factor(Footing(4e15, 800.0, 1.5, 600.0), Footing(1e15, 100.0, 1.2, 60.0))
    >>> saving.model, saving.machine, saving.mechanization, saving.map
    (4.0, 2.0, 1.25, 10.0)

    Raises:
        BadInput: a term that is not positive: a ratio needs both sides.
    """
    for name, footing in (("before", before), ("after", after)):
        terms = (footing.flops, footing.device_joules, footing.pue, footing.intensity_grams_per_kwh)
        if not all(0 < term < float("inf") for term in terms):
            raise BadInput(f"the run {name} needs positive FLOPs, joules, PUE and intensity to be factored")
    return Factors(
        model=before.flops / after.flops,
        machine=(before.device_joules / before.flops) / (after.device_joules / after.flops),
        mechanization=before.pue / after.pue,
        map=before.intensity_grams_per_kwh / after.intensity_grams_per_kwh,
    )


def clover_objective(
    carbon_before: float, carbon_after: float, accuracy_before: float, accuracy_after: float, *, weight: float = 0.1
) -> float:
    """f = weight x (C_base - C)/C_base - (1 - weight) x (A_base - A)/A_base (Li et al. 2023, Clover): higher is better.

    >>> round(clover_objective(100, 40, 1.0, 0.97), 3)
    0.033

    Raises:
        BadInput: a baseline that is not positive, or a weight outside 0..1.
    """
    if not (carbon_before > 0 and accuracy_before > 0):
        raise BadInput("the baseline's carbon and accuracy must be positive")
    if not 0 <= weight <= 1:
        raise BadInput(f"weight must be 0..1, got {weight}")
    carbon = (carbon_before - carbon_after) / carbon_before
    accuracy = (accuracy_before - accuracy_after) / accuracy_before
    return weight * carbon - (1 - weight) * accuracy
