"""How grams are counted, in all trials of a study alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metering.units import JOULES_PER_KWH

_GRAMS = "grams_per_1k_output_tokens"


@dataclass(frozen=True, slots=True)
class Carbon:
    """Trials an hour apart are under another grid: ranked by their receipts' own grams, the one that happened to run
    under the cleaner grid would win. So joules are counted at the grid of the first trial.
    """

    grams_per_kwh: float | None
    """None: joules are unknown, and the operational grams are as they were told."""
    embodied: bool
    """Whether embodied grams are in; where the first trial's receipts told them."""

    @classmethod
    def of(cls, first: Mapping[str, Any]) -> Carbon:
        """By the figures of a study's first trial."""
        joules, grams = _joules(first), first.get("operational_grams")
        grid = float(grams) / joules * JOULES_PER_KWH if joules and grams is not None else None
        return cls(grid, first.get("embodied_grams") is not None)

    def counted(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """The figures with grams per 1k tokens so counted; the operational ones, as told, beside them."""
        tokens, told, joules = figures.get("output_tokens"), figures.get("operational_grams"), _joules(figures)
        if not tokens or told is None:
            return dict(figures)
        grams = told
        if self.grams_per_kwh is not None and joules is not None:
            grams = joules / JOULES_PER_KWH * self.grams_per_kwh
        embodied = figures.get("embodied_grams") if self.embodied else 0.0
        return {
            **figures,
            _GRAMS: None if embodied is None else 1000 * (grams + embodied) / tokens,
            f"operational_{_GRAMS}": 1000 * told / tokens,
        }

    def __str__(self) -> str:
        grid = "at the grid of each run" if self.grams_per_kwh is None else f"at {self.grams_per_kwh:.4g} g/kWh"
        return f"grams are operational{' and embodied' if self.embodied else ' (embodied are unknown)'}, {grid}"

    def as_dict(self) -> dict[str, Any]:
        return {"grams_per_kwh": self.grams_per_kwh, "embodied": self.embodied, "told": str(self)}


def _joules(figures: Mapping[str, Any]) -> float | None:
    each, tokens = figures.get("joules_per_output_token"), figures.get("output_tokens")
    return None if each is None or tokens is None else float(each) * tokens
