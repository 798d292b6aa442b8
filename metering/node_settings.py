"""How a node's windows are cut, divided and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metering.idle import IdlePolicy
from metering.weights import WeightKind


@dataclass(frozen=True, slots=True)
class Embodied:
    """Embodied carbon of a component, spread evenly over its life."""

    grams: float
    lifetime_seconds: float

    def __post_init__(self) -> None:
        if self.grams < 0 or self.lifetime_seconds <= 0:
            raise ValueError(
                f"embodied carbon needs grams >= 0 and a lifetime above zero, got {self.grams}, {self.lifetime_seconds}"
            )


GRACE_SECONDS = 10.0
"""Above the longest step of an engine: a prompt of 1,000 tokens takes a CPU core 4 s, a full batch of 2,048 about 8.
Receipts become final later by it only while such work is under way, or a replica is silent."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How a node's windows are divided."""

    window_seconds: float = 1.0
    """Shortest window, >= 1: energy counters tick every 100 ms or so, shorter windows would be noise."""
    grace_seconds: float = GRACE_SECONDS
    """How long a sealed window waits for sources that are behind, before it is booked without them."""
    silent_seconds: float = 15.0
    """A source not heard of for so long is dead: its open requests are booked as they are."""
    weight: WeightKind = WeightKind.ROOFLINE_TIME
    idle_policy: IdlePolicy = IdlePolicy.RESERVED
    idle_release_seconds: float = 60.0
    """``reserved``: busy seconds over which carried idle is given out."""
    pue: float = 1.0
    """Power usage effectiveness, >= 1; overhead = (PUE - 1) x the rest."""
    embodied: Mapping[str, Embodied] = field(default_factory=dict)
    """By component name."""
    prices_per_hour: Mapping[str, float] = field(default_factory=dict)
    """Of devices, by component name, in the operator's currency."""
    price_per_kwh: float | None = None
    """Of electricity, overhead included; None: not given."""
    kept_receipts: int = 10_000
    kept_seconds: float = 3600.0
    abandoned_seconds: float = 3600.0
    """A request without a new record for so long is booked as it is, though its source lives."""

    def __post_init__(self) -> None:
        if self.window_seconds < 1.0:
            raise ValueError(
                f"window_seconds must be 1 or more (energy counters are coarse), got {self.window_seconds}"
            )
        if self.pue < 1.0:
            raise ValueError(f"pue must be 1 or more, got {self.pue}")
        if self.grace_seconds < 0 or self.silent_seconds <= 0:
            raise ValueError("grace_seconds must not be negative and silent_seconds must be above zero")
