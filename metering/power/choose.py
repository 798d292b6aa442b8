"""Which meter a node uses, and why not a better one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from metering.power.base import LoadPower, PowerMeter, PowerUnavailable


@dataclass(frozen=True, slots=True)
class Candidate:
    """A meter that may turn out to be unavailable: ``build`` then raises ``PowerUnavailable``."""

    name: str
    build: Callable[[], PowerMeter | LoadPower]


@dataclass(frozen=True, slots=True)
class Rejected:
    part: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """The meters of a node. Parts that nothing covers are unknown, and said to be."""

    meters: tuple[PowerMeter, ...]
    load_models: tuple[LoadPower, ...]
    chosen: Mapping[str, str]
    """Meter name by part."""
    rejected: tuple[Rejected, ...]
    """Candidates that were better but not to be had, with the reason."""
    uncovered: tuple[str, ...]

    @property
    def explanation(self) -> tuple[str, ...]:
        """One line a decision, for the log and ``wattgate hardware``."""
        lines = [f"power of {part}: {name}" for part, name in self.chosen.items()]
        lines += [f"power of {part}: unknown" for part in self.uncovered]
        return (*lines, *(f"power of {entry.part} not by {entry.name}: {entry.reason}" for entry in self.rejected))


def choose_meter(candidates: Mapping[str, Sequence[Candidate]]) -> PowerPlan:
    """The first candidate that is available, for each part of the node.

    Args:
        candidates: by part (``cpu`` alone, or ``gpu`` and ``host``), best first: measured before modelled.
    """
    meters: list[PowerMeter] = []
    models: list[LoadPower] = []
    chosen: dict[str, str] = {}
    rejected: list[Rejected] = []
    for part, wanted in candidates.items():
        for candidate in wanted:
            try:
                built = candidate.build()
            except PowerUnavailable as error:
                rejected.append(Rejected(part, candidate.name, str(error)))
                continue
            chosen[part] = candidate.name
            if hasattr(built, "read"):
                meters.append(cast(PowerMeter, built))
            else:
                models.append(built)
            break
    return PowerPlan(
        tuple(meters),
        tuple(models),
        chosen,
        tuple(rejected),
        tuple(part for part in candidates if part not in chosen),
    )
