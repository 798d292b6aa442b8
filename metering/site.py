"""Where and on what terms work runs: grid, PUE, hardware lifetime and the user's own prices."""

from __future__ import annotations

from dataclasses import dataclass, field

from metering.errors import BadInput
from metering.intensity.reading import IntensityReading
from metering.receipt import cost_of
from metering.sci import DEFAULT_LIFETIME_YEARS, YEAR_SECONDS
from metering.units import JOULES_PER_KWH


@dataclass(frozen=True, slots=True)
class Prices:
    """What the user pays, in one currency of theirs; None: not given."""

    per_device_hour: float | None = None
    per_kwh: float | None = None

    def cost(self, device_seconds: float | None, facility_joules: float | None) -> dict[str, float] | None:
        """Cost by cause and in total; None where no price was given.

        >>> Prices(per_device_hour=2.0, per_kwh=0.25).cost(1800, 7.2e6)
        {'devices': 1.0, 'electricity': 0.5, 'total': 1.5}
        """
        devices = electricity = None
        if self.per_device_hour is not None and device_seconds is not None:
            devices = self.per_device_hour * device_seconds / 3600
        if self.per_kwh is not None and facility_joules is not None:
            electricity = self.per_kwh * facility_joules / JOULES_PER_KWH
        return cost_of(devices, electricity)


@dataclass(frozen=True, slots=True)
class Site:
    """Terms of a place.

    Raises:
        BadInput: a PUE below 1 or a lifetime that is not positive.
    """

    intensity: IntensityReading
    pue: float = 1.0
    """Facility energy over device energy."""
    lifetime_years: float = DEFAULT_LIFETIME_YEARS
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        if not 1 <= self.pue < float("inf"):
            raise BadInput(f"PUE is facility energy over device energy and at least 1, got {self.pue}")
        if not 0 < self.lifetime_years < float("inf"):
            raise BadInput(f"lifetime must be positive, got {self.lifetime_years} years")

    @property
    def lifetime_seconds(self) -> float:
        return self.lifetime_years * YEAR_SECONDS

    def operational_grams(self, device_joules: float) -> float:
        return device_joules * self.pue / JOULES_PER_KWH * self.intensity.grams_per_kwh
