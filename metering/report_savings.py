"""What caching, batching, the site and the grid saved, as the 4Ms of Patterson et al. 2022; the factors multiply."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from metering.errors import BadInput
from metering.fourms import Footing, factor


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the run is compared with, beside "no response cache, no reused prefix, every sequence alone"."""

    pue: float | None = None
    """PUE of the site that would have served it otherwise; None: the same site."""
    intensity_grams_per_kwh: float | None = None
    """Grid intensity there; None: the same grid."""
    name: str = ""
    """Where the intensity is from, as ``WORLD, codecarbon 2023``."""

    def __post_init__(self) -> None:
        if self.pue is not None and not 1 <= self.pue < float("inf"):
            raise BadInput(f"the baseline's PUE must be at least 1, got {self.pue}")
        if self.intensity_grams_per_kwh is not None and not 0 < self.intensity_grams_per_kwh < float("inf"):
            raise BadInput(f"the baseline's intensity must be above 0 g/kWh, got {self.intensity_grams_per_kwh}")


@dataclass(frozen=True, slots=True)
class Run:
    """Sums of a run that the factors are made from."""

    flops: float
    response_flops_avoided: float
    prefix_flops_avoided: float
    work_joules: float
    """At the devices, without idle."""
    idle_joules: float
    overhead_joules: float
    operational_grams: float | None
    """None where a part has no intensity."""
    roofline_seconds: float
    roofline_alone_seconds: float


@dataclass(frozen=True, slots=True)
class Savings:
    """How many times less was emitted than at the baseline, by cause. ``total`` is the product of the four."""

    model: float
    """response_cache x prefix_cache: FLOPs for the same answers."""
    machine: float
    """batching x idle_spread: joules per FLOP."""
    mechanization: float
    """PUE."""
    map: float
    """Grid intensity."""
    total: float
    response_cache: float
    prefix_cache: float
    batching: float
    idle_spread: float
    """At most 1: the same idle energy falls on fewer FLOPs than at the baseline, so each costs more."""
    saved_grams: float
    """Operational, at the baseline minus emitted."""
    baseline: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"baseline": list(self.baseline)}


def savings(run: Run, baseline: Baseline) -> Savings | str:
    """The factors, or why they cannot be stated.

    Without the caches the energy of the work would have been larger by the ratio of the FLOPs, without batching by
    that of the roofline times; idle energy is left as it was, whatever was avoided. Map and mechanization are 1 unless
    a baseline is given.

    >>> run = Run(1e15, 1e15, 0.0, 900.0, 100.0, 0.0, 0.1, 1.0, 3.0)
    >>> found = savings(run, Baseline(intensity_grams_per_kwh=720.0))
    >>> found.response_cache, round(found.batching, 6), round(found.map, 6), round(found.total, 6)
    (2.0, 2.894737, 2.0, 11.0)
    """
    device = run.work_joules + run.idle_joules
    if run.flops <= 0:
        return "the FLOPs are unknown"
    if device <= 0:
        return "the energy is unknown"
    if run.operational_grams is None or run.operational_grams <= 0:
        return "the grid intensity is unknown for a part of it, or zero"
    pue = (device + run.overhead_joules) / device
    intensity = run.operational_grams / (device * pue) * 3.6e6
    longer = run.roofline_alone_seconds / run.roofline_seconds if run.roofline_seconds > 0 else 1.0
    demand = run.flops + run.response_flops_avoided + run.prefix_flops_avoided
    demand_work = run.work_joules * (demand / run.flops)
    before = Footing(
        demand,
        demand_work * longer + run.idle_joules,
        baseline.pue or pue,
        baseline.intensity_grams_per_kwh or intensity,
    )
    after = Footing(run.flops, device, pue, intensity)
    factors = factor(before, after)
    with_prefix = run.flops + run.prefix_flops_avoided
    return Savings(
        model=factors.model,
        machine=factors.machine,
        mechanization=factors.mechanization,
        map=factors.map,
        total=factors.total,
        response_cache=demand / with_prefix,
        prefix_cache=with_prefix / run.flops,
        batching=before.device_joules / (demand_work + run.idle_joules),
        idle_spread=(demand_work + run.idle_joules) / (device * (demand / run.flops)),
        saved_grams=before.grams - after.grams,
        baseline=_words(run, baseline, pue, intensity),
    )


def _words(run: Run, baseline: Baseline, pue: float, intensity: float) -> tuple[str, ...]:
    grid = (
        f"intensity {baseline.intensity_grams_per_kwh:g} g/kWh{f' ({baseline.name})' if baseline.name else ''}"
        if baseline.intensity_grams_per_kwh is not None
        else f"the same grid, {intensity:.4g} g/kWh (give --baseline-zone to compare)"
    )
    site = (
        f"PUE {baseline.pue:g}" if baseline.pue is not None else f"the same PUE, {pue:.4g} (--baseline-pue to compare)"
    )
    batch = "every sequence alone in its forward passes, by the roofline model"
    return (
        "no response cache: every hit costs the FLOPs of its original",
        "no prefix cache: reused prompt tokens are computed",
        batch if run.roofline_seconds > 0 else "batching not compared: no roofline is known",
        site,
        grid,
    )
