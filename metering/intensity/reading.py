"""One figure of a grid's carbon intensity, with all that must stand beside it, and the Protocol of its sources."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

Signal = Literal["average", "marginal"]
"""``average``: the mix consumed (location-based, what SCI asks for); ``marginal``: the plant that one more kWh
starts. The two answer different questions and are never mixed in one series."""


class Quality(StrEnum):
    """How far a figure can be trusted, best first."""

    LIVE = "live"
    ESTIMATED = "estimated"
    """The source itself estimated or forecast the value of the present hour."""
    FORECAST = "forecast"
    SCRIPTED = "scripted"
    STALE = "stale"
    """The last good value of a source that fails now."""
    STATIC = "static"
    """Annual mean of a past year."""


@dataclass(frozen=True, slots=True)
class IntensityReading:
    """``grams_per_kwh`` of CO2e for electricity in ``zone``."""

    grams_per_kwh: float
    zone: str
    source: str
    """Name of the source, with its year where it is a static figure: a label."""
    quality: Quality
    signal: Signal = "average"
    at: datetime | None = None
    """Start of the interval that the figure is for, UTC; None for an annual mean."""
    carbon_free_ratio: float | None = None
    """Share of carbon-free generation, 0..1, where the source gives it."""
    fallback_from: str | None = None
    """The source that should have answered, when this figure stands in for it."""


class CarbonIntensity(Protocol):
    """A source of carbon intensity for one zone and one signal."""

    zone: str
    source: str
    signal: Signal

    async def latest(self) -> IntensityReading:
        """The figure for now.

        Raises:
            IntensityUnavailable: no figure could be had; the message says why.
        """

    async def forecast(self) -> tuple[IntensityReading, ...]:
        """Figures of the hours ahead, by time; empty where the source forecasts nothing."""


class IntensityUnavailable(Exception):
    """The source gave no usable figure: unreachable, refused, null or malformed."""
