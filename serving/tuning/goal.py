"""What is wanted of a setting, within what, and whether a run of it kept that."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from serving.tuning.carbon import Carbon
from serving.tuning.setting import Setting
from serving.tuning.slo import Slo

Objective = Literal["grams", "joules", "tokens", "cost"]
_KEYS: dict[Objective, str] = {
    "grams": "grams_per_1k_output_tokens",
    "joules": "joules_per_output_token",
    "tokens": "output_tokens_per_second",
    "cost": "cost_per_1k_output_tokens",
}
TOKENS_KEY = _KEYS["tokens"]
_TOLERATED_ERRORS = 0.01
"""Share of a run's requests, rounded up, that may fail: with one broken connection in an hour no setting would do."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted, within what."""

    objective: Objective
    slo: Slo
    price_per_device_hour: float | None = None
    """For runs whose receipts tell no cost: devices only, without electricity."""
    devices: int = 1
    """Of one replica; only for that cost."""
    carbon: Carbon | None = None
    """None: grams as each run's receipts tell them."""

    @property
    def key(self) -> str:
        return _KEYS[self.objective]

    @property
    def latency_key(self) -> str:
        """The frontier's other axis: what the SLO bounds first; without an SLO the whole answer's p95."""
        return self.slo.bounds[0].key if self.slo.bounds else "e2e_p95_seconds"

    def counting_as(self, runs: Iterable[dict[str, Any]]) -> Goal:
        """With grams counted as in the first of these runs that tells some."""
        first = next((figures for figures in runs if figures.get("operational_grams") is not None), None)
        return self if first is None or self.carbon is not None else replace(self, carbon=Carbon.of(first))

    def rated(self, figures: dict[str, Any], setting: Setting) -> dict[str, Any]:
        """The figures with what is compared: grams of 1k tokens counted alike, and their cost where a price is known
        (the receipts' where they tell it).
        """
        cost = figures.get("cost_per_1k_output_tokens")
        rate = figures.get("output_tokens_per_second")
        if cost is None and self.price_per_device_hour is not None and rate:
            hourly = self.price_per_device_hour * self.devices * (setting.replicas or 1)
            cost = hourly / 3600 / rate * 1000
        counted = figures if self.carbon is None else self.carbon.counted(figures)
        return {**counted, "cost_per_1k_output_tokens": cost}

    def value(self, figures: dict[str, Any]) -> float:
        """To be minimised; tokens/s count negative. Infinite where unknown."""
        found = figures.get(self.key)
        if found is None:
            return math.inf
        return -float(found) if self.objective == "tokens" else float(found)


@dataclass(frozen=True)
class Tried:
    """One trial. ``meets``: every bound held, nothing failed, and it ran to its end."""

    number: int
    setting: Setting
    figures: dict[str, Any]
    meets: bool
    worst_excess: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "setting": asdict(self.setting),
            "meets_slo": self.meets,
            "worst_excess": None if math.isinf(self.worst_excess) else self.worst_excess,
            "figures": self.figures,
        }


def kept(figures: dict[str, Any], slo: Slo) -> bool:
    """Whether a run kept the promise: every bound held, nothing failed, and it ran to its end."""
    return slo.met(figures) and not incomplete(figures)


def judge(number: int, setting: Setting, figures: dict[str, Any], slo: Slo) -> Tried:
    return Tried(number, setting, figures, kept(figures, slo), slo.worst_excess(figures))


def incomplete(figures: dict[str, Any]) -> bool:
    """Whether a run was ended early, or more of its requests failed than are tolerated."""
    return bool(figures.get("stopped_early")) or figures["requests"] - figures["completed"] > tolerated_errors(figures)


def tolerated_errors(figures: dict[str, Any]) -> int:
    return math.ceil(_TOLERATED_ERRORS * int(figures["requests"]))


def errors_of(figures: dict[str, Any]) -> str:
    """``HTTP 429 x 3``; empty without any."""
    errors = figures.get("errors") or {}
    return ", ".join(f"{error} x {count}" for error, count in sorted(errors.items(), key=lambda one: -one[1]))
