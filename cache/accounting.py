"""What a hit avoided: the original's figures minus the lookup's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cache.entry import CachedAnswer

_ENERGY_BOUNDARIES = ("accelerator", "host", "idle", "overhead")


@dataclass(frozen=True, slots=True)
class Avoided:
    """None: the original's figure, or the lookup's, is not known. Negative: the lookup cost more than the run did."""

    prompt_tokens: int
    completion_tokens: int
    joules: float | None
    grams: float | None

    @property
    def tokens(self) -> int:
        """Tokens saved; never part of tokens used."""
        return self.prompt_tokens + self.completion_tokens


def avoided(answer: CachedAnswer, *, lookup_joules: float | None, lookup_grams: float | None) -> Avoided:
    """Tokens, energy (J) and emissions (gCO2e, operational and embodied) that serving a stored answer avoided.

    The original's figures are those of the receipt stored with it (``usage.wattgate`` schema).
    """
    usage, receipt = answer.usage(), answer.receipt or {}
    return Avoided(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        joules=_minus(_joules(receipt), lookup_joules),
        grams=_minus(_grams(receipt), lookup_grams),
    )


def _joules(receipt: Mapping[str, Any]) -> float | None:
    energy = receipt.get("energy_joules")
    if not isinstance(energy, Mapping):
        return None
    total = energy.get("total")
    return float(sum(energy.get(name) or 0.0 for name in _ENERGY_BOUNDARIES) if total is None else total)


def _grams(receipt: Mapping[str, Any]) -> float | None:
    """Both shares must be known: half of the emissions would pass for the whole."""
    operational, embodied = receipt.get("operational_grams"), receipt.get("embodied_grams")
    return None if operational is None or embodied is None else float(operational) + float(embodied)


def _minus(original: float | None, lookup: float | None) -> float | None:
    return None if original is None or lookup is None else original - lookup


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
