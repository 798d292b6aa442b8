"""From attributed amounts to receipts: provisional when the answer leaves, final from the books, and for cache hits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from metering.power.base import Boundary
from metering.receipt import EnergyJoules, Receipt, cost_of
from metering.weights import WeightKind, WorkModel, usable_kind, weight
from metering.work import Method, WorkRecord

if TYPE_CHECKING:
    from metering.intensity.reading import IntensityReading

JOULES_PER_KWH = 3.6e6
_STRENGTH = (Method.MEASURED, Method.MODELLED, Method.SIMULATED)


def weakest(methods: Iterable[Method], default: Method = Method.MODELLED) -> Method:
    """The method of a sum: the weakest of its parts."""
    return max(methods, key=_STRENGTH.index, default=default)


def by_boundary(methods: Mapping[Boundary, Iterable[Method]]) -> dict[str, str]:
    """The weakest method of each boundary."""
    return {boundary.value: weakest(methods[boundary]).value for boundary in Boundary if boundary in methods}


@dataclass(frozen=True, slots=True)
class IntensityStamp:
    """The grid intensity that a window is booked with."""

    grams_per_kwh: float
    zone: str
    source: str
    """With its year and what limits it, as ``codecarbon 2023`` or ``electricity maps (stale)``."""
    signal: Literal["average", "marginal"] = "average"
    quality: str = "static"
    """Value of ``metering.intensity.reading.Quality``."""
    carbon_free_ratio: float | None = None

    @classmethod
    def of(cls, reading: IntensityReading) -> IntensityStamp:
        """From a reading; a quality or signal that a reader has to know of goes into the source."""
        limits = [] if reading.quality.value in ("live", "static") else [reading.quality.value]
        if reading.signal != "average":
            limits.append(reading.signal)
        if reading.fallback_from is not None:
            limits.append(f"in place of {reading.fallback_from}")
        source = f"{reading.source} ({', '.join(limits)})" if limits else reading.source
        return cls(
            reading.grams_per_kwh,
            reading.zone,
            source,
            reading.signal,
            reading.quality.value,
            reading.carbon_free_ratio,
        )


@dataclass(frozen=True, slots=True)
class ComponentRate:
    """What a unit of weight cost on one component in its last window that did work."""

    component: str
    boundary: Boundary
    kind: WeightKind
    joules_per_weight: float | None
    idle_joules_per_second: float | None
    """Idle shared, per second that a sequence was scheduled."""
    device_seconds_per_weight: float
    embodied_grams_per_weight: float | None
    embodied_grams_per_second: float | None
    """Embodied share of the idle, per second that a sequence was scheduled."""
    device_cost_per_weight: float | None = None
    """Price of the device's time; None where none was given."""
    device_cost_per_second: float | None = None
    method: Method = Method.MODELLED
    """How the joules were obtained."""


@dataclass(frozen=True, slots=True)
class Rates:
    """All that a replica needs for a provisional receipt: the rates of the last closed window."""

    components: tuple[ComponentRate, ...] = ()
    """Of the devices that the replica is attached to and of the host; empty before the first window with work."""
    window_end_seconds: float | None = None
    wanted: WeightKind = WeightKind.ROOFLINE_TIME
    mean_batch: Mapping[str, float] = field(default_factory=dict)
    """Mean sequences per forward pass of the replica's engines, by model."""
    pue: float = 1.0
    intensity: IntensityStamp | None = None
    method: Method = Method.MODELLED
    power: str = "unknown"
    """The power meters' names, first part of ``estimator``."""
    price_per_kwh: float | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The answer to a batch: it is booked (now or before), and the replica may forget it."""

    source: str
    sequence: int
    booked: bool
    """False for a batch that had been booked before."""
    rates: Rates


def mfu(flops: int | None, peak_flops: float | None, device_seconds: float) -> float | None:
    """FLOPs / (peak x device-seconds); above one it shows a wrong FLOP count or peak and is not clamped."""
    if flops is None or not peak_flops or device_seconds <= 0:
        return None
    return flops / (peak_flops * device_seconds)


def estimator_name(power: str, kinds: Iterable[WeightKind], wanted: WeightKind) -> str:
    """As ``nvml/roofline_time``, or ``nvml/flops (roofline_time wanted)`` after a fall-back."""
    used = sorted({kind.value for kind in kinds}) or [wanted.value]
    fallen = "" if used == [wanted.value] else f" ({wanted.value} wanted)"
    return f"{power}/{'+'.join(used)}{fallen}"


def provisional(
    receipt_id: str, records: Iterable[WorkRecord], rates: Rates, model: WorkModel | None, *, cache: str = "MISS"
) -> Receipt:
    """Receipt of a request at the rates of the last closed window; pure, for the replica.

    ``records`` are all of the request's. Where no window with work has closed yet, energy and carbon are
    ``None`` with a note: a first request has nothing to go by.
    """
    known = list(records)
    works = [model.work(record) if model is not None else None for record in known]
    flops_prefill = flops_decode = None
    if model is not None and all(work is not None for work in works):
        flops_prefill = sum(work.flops_prefill for work in works if work is not None)
        flops_decode = sum(work.flops_decode for work in works if work is not None)
    batch = rates.mean_batch.get(known[0].model, 1.0) if known else 1.0
    seconds = sum(max(0.0, record.ended_seconds - record.started_seconds) for record in known)

    joules = {Boundary.ACCELERATOR: 0.0, Boundary.HOST: 0.0}
    idle = embodied = device_seconds = 0.0
    energy_known = host_known = False
    embodied_boundaries: set[Boundary] = set()
    energy_methods: dict[Boundary, set[Method]] = {}
    device_cost: float | None = None
    notes: list[str] = []
    kinds: set[WeightKind] = set()
    for rate in rates.components:
        if any(
            _below(usable_kind(rates.wanted, model, work), rate.kind) for work in works
        ):  # this work cannot be weighed in the rate's unit
            notes.append(f"no provisional share of {rate.component}: its rates are per {rate.kind.value}")
            continue
        kinds.add(rate.kind)
        weighed = sum(weight(rate.kind, r, w, model, batch) for r, w in zip(known, works, strict=True))
        if rate.joules_per_weight is not None:
            energy_known = energy_known or rate.boundary is Boundary.ACCELERATOR
            host_known = host_known or rate.boundary is Boundary.HOST
            energy_methods.setdefault(rate.boundary, set()).add(rate.method)
            joules[rate.boundary] += rate.joules_per_weight * weighed
            idle += (rate.idle_joules_per_second or 0.0) * seconds
        if rate.boundary is Boundary.ACCELERATOR and device_seconds == 0.0:
            device_seconds = rate.device_seconds_per_weight * weighed
        if rate.embodied_grams_per_weight is not None:
            embodied_boundaries.add(rate.boundary)
            embodied += rate.embodied_grams_per_weight * weighed + (rate.embodied_grams_per_second or 0.0) * seconds
        if rate.device_cost_per_weight is not None:
            idle_cost = (rate.device_cost_per_second or 0.0) * seconds
            device_cost = (device_cost or 0.0) + rate.device_cost_per_weight * weighed + idle_cost
    energy = None
    needed = Boundary.ACCELERATOR
    if not any(rate.boundary is Boundary.ACCELERATOR for rate in rates.components):
        # a replica that runs on no accelerator: the host is all there is
        energy_known, needed = host_known, Boundary.HOST
    if energy_known:
        if not host_known:
            notes.append("energy of the host is unknown and not included")
        device = joules[Boundary.ACCELERATOR] + joules[Boundary.HOST] + idle
        energy = EnergyJoules(
            joules[Boundary.ACCELERATOR], joules[Boundary.HOST], idle, overhead=(rates.pue - 1.0) * device
        )
    elif not rates.components:
        notes.append("no window with work has closed yet: energy follows in the final receipt")
    else:
        notes.append("power of the device is unknown")
    stamp = rates.intensity
    if stamp is None:
        notes.append("grid intensity is unknown")
    return Receipt(
        receipt_id=receipt_id,
        status="provisional",
        flops_prefill=flops_prefill,
        flops_decode=flops_decode,
        mfu_ratio=mfu(
            None if flops_prefill is None or flops_decode is None else flops_prefill + flops_decode,
            model.peak_flops if model is not None else None,
            device_seconds,
        ),
        energy_joules=energy,
        operational_grams=energy.total / JOULES_PER_KWH * stamp.grams_per_kwh if energy and stamp else None,
        embodied_grams=embodied if needed in embodied_boundaries else None,
        cost=cost_of(device_cost, _electricity_cost(energy, rates.price_per_kwh)),
        method=weakest([rates.method, *(record.method for record in known)]),
        energy_methods=by_boundary(energy_methods),
        estimator=estimator_name(rates.power, kinds, rates.wanted),
        intensity_grams_per_kwh=stamp.grams_per_kwh if stamp else None,
        zone=stamp.zone if stamp else None,
        source=stamp.source if stamp else "",
        cache=cache,
        notes=tuple(notes),
    )


def _electricity_cost(energy: EnergyJoules | None, price_per_kwh: float | None) -> float | None:
    return None if energy is None or price_per_kwh is None else energy.total / JOULES_PER_KWH * price_per_kwh


def _below(possible: WeightKind, needed: WeightKind) -> bool:
    """Whether work that can at best be weighed as ``possible`` cannot be weighed as ``needed``."""
    order = (WeightKind.ROOFLINE_TIME, WeightKind.FLOPS, WeightKind.TOKENS)
    if possible not in order or needed not in order:
        return False
    return order.index(possible) > order.index(needed)


def hit_receipt(
    receipt_id: str,
    original: Receipt | None,
    *,
    cache: str,
    lookup_cpu_seconds: float,
    host_watts_per_core: float | None,
    pue: float = 1.0,
    intensity: IntensityStamp | None = None,
    price_per_kwh: float | None = None,
) -> Receipt:
    """Receipt of an answer from the cache: its own small cost, and what it avoided.

    The hit is modelled beside the books: its joules are already in the host's window (as idle, or with the work
    that ran then), so receipts of hits are not a line of the ledger.

    Own cost = CPU seconds of the lookup x watts per busy core, in ``host``, plus PUE. Avoided = what the work
    of the original took (accelerator and host with their overhead) minus the hit's own cost: the idle energy of
    the original is left out, since the hardware would have drawn it anyway. It is negative for a lookup
    dearer than the work. Avoided grams are at the intensity given, that of now, else at the original's; avoided
    cost is that of the electricity.
    """
    notes: list[str] = []
    energy = None
    if host_watts_per_core is None:
        notes.append("watts of a host core are unknown: the lookup's own cost and what it avoided are not stated")
    else:
        host = lookup_cpu_seconds * host_watts_per_core
        energy = EnergyJoules(host=host, overhead=(pue - 1.0) * host)
    avoided_joules = avoided_grams = 0.0
    avoided_cost: float | None = None
    grams_per_kwh = intensity.grams_per_kwh if intensity else original.intensity_grams_per_kwh if original else None
    spent = original.energy_joules if original is not None else None
    if spent is None:
        notes.append("energy of the original answer is unknown: what the hit avoided is not stated")
    elif energy is not None:
        work = spent.accelerator + spent.host
        device = work + spent.idle
        saved = work + (spent.overhead * work / device if device > 0 else 0.0)
        avoided_joules = saved - energy.total
        if grams_per_kwh is not None:
            avoided_grams = avoided_joules / JOULES_PER_KWH * grams_per_kwh
        if price_per_kwh is not None:
            avoided_cost = avoided_joules / JOULES_PER_KWH * price_per_kwh
    if grams_per_kwh is None:
        notes.append("grid intensity is unknown")
    return Receipt(
        receipt_id=receipt_id,
        status="final",
        flops_prefill=0,
        flops_decode=0,
        energy_joules=energy,
        operational_grams=energy.total / JOULES_PER_KWH * grams_per_kwh
        if energy is not None and grams_per_kwh is not None
        else None,
        embodied_grams=None,
        cost=cost_of(None, _electricity_cost(energy, price_per_kwh)),
        avoided_joules=avoided_joules,
        avoided_grams=avoided_grams,
        avoided_cost=avoided_cost,
        method=weakest([Method.MODELLED, *([original.method] if original is not None else [])]),
        energy_methods={} if energy is None else by_boundary({Boundary.HOST: [Method.MODELLED]}),
        estimator="cpu_seconds",
        intensity_grams_per_kwh=grams_per_kwh,
        zone=intensity.zone if intensity else original.zone if original else None,
        source=intensity.source if intensity else original.source if original else "",
        cache=cache,
        notes=tuple(notes),
    )
