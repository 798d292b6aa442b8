"""What a fleet would do with a workload, and the smallest one that keeps the promise. Everything is simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from metering.errors import BadInput
from metering.site import Site
from serving.tuning.engine_model import EngineModel
from serving.tuning.forecast import forecast
from serving.tuning.simulation import Limits, simulate
from serving.tuning.slo import Slo
from serving.tuning.workload import Workload

Objective = Literal["grams", "cost", "energy", "devices"]
MAX_REPLICAS = 16_384
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Option:
    """One way to serve: a variant of the model on a device, at a place."""

    engine: EngineModel
    site: Site
    limits: Limits
    host_watts: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.engine.model} on {self.engine.devices} x {self.engine.device}, {self.site.intensity.zone}"


@dataclass(frozen=True, slots=True)
class Predicted:
    """``meets``: every bound holds and nothing is refused."""

    option: Option
    replicas: int
    figures: dict[str, Any]
    meets: bool
    reason: str = ""
    """Why not."""

    def as_dict(self) -> dict[str, Any]:
        engine = self.option.engine
        return {
            "option": self.option.label,
            "model": engine.model,
            "device": engine.device,
            "devices_per_replica": engine.devices,
            "replicas": self.replicas,
            "cap": self.option.limits.cap,
            "meets_slo": self.meets,
            "reason": self.reason,
            **self.figures,
            "fit": engine.fit.source,
            "notes": list(engine.notes),
        }


def predict(workload: Workload, option: Option, replicas: int, slo: Slo) -> Predicted:
    """One fleet of ``replicas``.

    Raises:
        BadInput: see :func:`serving.tuning.simulation.simulate`.
    """
    run = simulate(workload, option.engine, option.limits, replicas=replicas)
    figures = forecast(workload, option.engine, run, slo, option.site, host_watts=option.host_watts)
    broken = [
        f"{bound.metric} p{bound.percentile} {_seen(figures[bound.key])} > {bound.seconds:g} s"
        for bound, excess in zip(slo.bounds, slo.excesses(figures), strict=True)
        if excess > 0
    ]
    if run.refused:
        broken.append(f"{run.refused} requests refused")
    return Predicted(option, replicas, figures, not broken, "; ".join(broken))


def smallest(workload: Workload, option: Option, slo: Slo, *, most: int = MAX_REPLICAS) -> Predicted:
    """The least number of replicas that meets the SLO, by doubling and halving; attainment is taken to rise with
    the fleet. Where none does, the closest that was tried, and why: a bound that an idle replica breaks is broken at
    any size.
    """
    alone = predict(workload, option, len(workload), slo) if len(workload) <= most else None
    if alone is not None and not alone.meets:
        return Predicted(
            option, alone.replicas, alone.figures, False, f"{alone.reason}, even with a replica for each request"
        )
    tried: dict[int, Predicted] = {}

    def at(count: int) -> Predicted:
        if count not in tried:
            tried[count] = predict(workload, option, count, slo)
        return tried[count]

    first = at(1)
    if first.meets:
        return first
    # one replica's busy time is what the work takes at full batches: fewer than busy / span cannot keep up
    span = max(workload.span_seconds, 1e-9)
    high = max(2, min(most, math.ceil(0.5 * first.figures["busy_ratio"] * first.figures["seconds"] / span)))
    low = 1
    while not at(high).meets:
        if high >= most:
            closest = min(tried.values(), key=lambda one: (slo.worst_excess(one.figures), one.replicas))
            return Predicted(
                option, closest.replicas, closest.figures, False, f"{closest.reason} with {closest.replicas} replicas"
            )
        low, high = high, min(most, high * 2)
    while high - low > 1:
        middle = (low + high) // 2
        if at(middle).meets:
            high = middle
        else:
            low = middle
    return at(high)


def plan(
    workload: Workload,
    options: Sequence[Option],
    slo: Slo,
    *,
    replicas: int | None = None,
    objective: Objective = "grams",
    told: Told = lambda text: None,
) -> dict[str, Any]:
    """Every option at ``replicas``, or at its smallest fleet; the best by ``objective`` among those that meet the SLO.

    Raises:
        BadInput: no options, or none that can run the workload at all.
    """
    if not options:
        raise BadInput("a plan needs at least one device")
    found, refusals = [], []
    for option in options:
        told(option.label)
        try:
            one = predict(workload, option, replicas, slo) if replicas else smallest(workload, option, slo)
        except BadInput as error:
            refusals.append(f"{option.label}: {error}")
            continue
        found.append(one)
    if not found:
        raise BadInput("; ".join(refusals))
    meeting = [one for one in found if one.meets]
    best = min(meeting, key=lambda one: _value(one, objective)) if meeting else None
    closest = min(found, key=lambda one: slo.worst_excess(one.figures))
    notes = [*refusals, "Figures are simulated: no engine ran."]
    if best is None:
        notes.append(f"No option meets the SLO ({slo}); the closest is {closest.option.label}: {closest.reason}.")
    elif math.isinf(_value(best, objective)):
        notes.append(f"No option that meets the SLO has known {objective}: give prices, or watts.")
    return {
        "method": "simulated",
        "objective": objective,
        "slo": str(slo),
        "feasible": best is not None,
        "workload": workload.describe(),
        "best": None if best is None else best.as_dict(),
        "closest": None if best is not None else closest.as_dict(),
        "options": [one.as_dict() for one in found],
        "notes": notes,
    }


def _value(one: Predicted, objective: Objective) -> float:
    figures = one.figures
    if objective == "devices":
        return float(figures["devices"])
    if objective == "cost":
        return float(figures["cost"]["total"]) if figures["cost"] else math.inf
    if objective == "energy":
        return float(figures["energy_joules"]["total"]) if figures["energy_joules"] else math.inf
    if figures["operational_grams"] is None:
        return math.inf
    return float(figures["operational_grams"]) + float(figures["embodied_grams"] or 0.0)


def _seen(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:.3g} s"
