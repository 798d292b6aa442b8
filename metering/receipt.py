"""The receipt: what one request cost, in one schema wherever it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from metering.work import Method


@dataclass(frozen=True, slots=True)
class EnergyJoules:
    """Energy by boundary. ``overhead`` is what PUE adds to the other three."""

    accelerator: float = 0.0
    host: float = 0.0
    idle: float = 0.0
    overhead: float = 0.0

    @property
    def total(self) -> float:
        return self.accelerator + self.host + self.idle + self.overhead


def cost_of(devices: float | None, electricity: float | None) -> dict[str, float] | None:
    """Cost by cause and in total, of what has a price; None where nothing has.

    >>> cost_of(0.5, None)
    {'devices': 0.5, 'total': 0.5}
    """
    priced = {"devices": devices, "electricity": electricity}
    costs = {cause: amount for cause, amount in priced.items() if amount is not None}
    return {**costs, "total": sum(costs.values())} if costs else None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Energy, carbon and model FLOPs of one request; ``usage.wattgate`` on the wire.

    ``provisional`` when the answer leaves (the last closed window's joules per unit of weight),
    ``final`` once every window that the request worked in has closed. ``None`` means unknown, never zero.
    """

    receipt_id: str
    status: Literal["provisional", "final"] = "provisional"
    flops_prefill: int | None = None
    flops_decode: int | None = None
    mfu_ratio: float | None = None
    energy_joules: EnergyJoules | None = None
    operational_grams: float | None = None
    embodied_grams: float | None = None
    cost: Mapping[str, float] | None = None
    """By cause (``devices``, ``electricity``) and in total, at the operator's prices; None where none were given."""
    avoided_joules: float = 0.0
    avoided_grams: float = 0.0
    avoided_cost: float | None = None
    """Of the avoided electricity; the devices are paid for all the same. None without a price or a known saving."""
    method: Method = Method.MODELLED
    """Of the whole: the weakest of its parts."""
    energy_methods: Mapping[str, str] = field(default_factory=dict)
    """By boundary that is metered, as ``{"accelerator": "measured", "host": "modelled"}``."""
    estimator: str = ""
    """Power meter and weight, as ``idle_aware/roofline_time``."""
    intensity_grams_per_kwh: float | None = None
    zone: str | None = None
    source: str = ""
    """Source of the intensity, with its year."""
    cache: str = "MISS"
    """``HIT-EXACT``, ``HIT-SEMANTIC``, ``MISS`` or ``BYPASS``."""
    notes: tuple[str, ...] = field(default=())
    """What is missing and why, one short sentence each."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; energy carries its total."""
        # not asdict: its deep copies cost more than the rest of a request's receipt
        out = {name: getattr(self, name) for name in _NAMES}
        energy = self.energy_joules
        if energy is not None:
            out["energy_joules"] = {
                "accelerator": energy.accelerator,
                "host": energy.host,
                "idle": energy.idle,
                "overhead": energy.overhead,
                "total": energy.total,
            }
        out["method"] = self.method.value
        out["energy_methods"] = dict(self.energy_methods)
        out["notes"] = list(self.notes)
        return out


def receipt_of(stored: dict[str, Any] | None) -> Receipt | None:
    """A receipt from its ``as_dict``, kept or sent; None where there is none or it is of another make."""
    if not stored:
        return None
    try:
        values = dict(stored)
        energy = values.pop("energy_joules", None)
        if energy is not None:
            energy = EnergyJoules(**{key: value for key, value in energy.items() if key != "total"})
        values["notes"] = tuple(values.get("notes") or ())
        return Receipt(**(values | {"energy_joules": energy, "method": Method(values["method"])}))
    except (TypeError, ValueError, KeyError):
        return None


_NAMES = tuple(one.name for one in fields(Receipt))
