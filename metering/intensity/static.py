"""Annual mean intensity by country, from a table with a year per zone; the fallback of every live source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

import yaml

from metering.errors import BadInput, UnknownZone, nearest
from metering.intensity.reading import IntensityReading, Quality, Signal

CREDIT = (
    "Annual grid intensities: global_energy_mix.json of codecarbon 3.3.2, MIT licence, Copyright (c) 2019 Mila, "
    "BCG Gamma, CometML, Haverford College; Copyright (c) 2023 Code Carbon NGO."
)
"""To stand in the README and in the notice of anything that ships the table."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A country, or ``WORLD``: ``grams_per_kwh`` of CO2e, the mean of ``year``."""

    code: str
    name: str
    grams_per_kwh: float
    year: int
    source: str
    alpha2: str | None = None
    carbon_free_ratio: float | None = None

    @property
    def label(self) -> str:
        """Source and year, as ``codecarbon 3.3.2 global_energy_mix (2023)``."""
        return f"{self.source} ({self.year})"


@cache
def zones() -> Mapping[str, Zone]:
    """Every zone of the table by its ISO 3166-1 alpha-3 code."""
    table = yaml.safe_load(resources.files(__package__).joinpath("zones.yaml").read_text(encoding="utf-8"))
    return MappingProxyType(
        {code: Zone(code=code, **{"source": table["source"], **row}) for code, row in table["zones"].items()}
    )


@cache
def _by_name() -> Mapping[str, str]:
    names = {zone.name.casefold(): code for code, zone in zones().items()}
    short = {zone.alpha2.casefold(): code for code, zone in zones().items() if zone.alpha2}
    return names | short | {code.casefold(): code for code in zones()}


def find_zone(name: str) -> Zone:
    """A country by its alpha-3 or alpha-2 code, its English name, or a grid zone within it (``US-CAL-CISO``: the
    country's mean), in any case.

    >>> find_zone("usa").grams_per_kwh
    369.473

    Raises:
        UnknownZone: with the nearest codes and names.
    """
    asked = name.strip().casefold()
    code = _by_name().get(asked)
    if code is None and asked[2:3] == "-":
        code = _by_name().get(asked[:2])
    if code is None:
        near = nearest(name, [*zones(), *(zone.name for zone in zones().values())])
        raise UnknownZone(f"unknown zone {name!r}{near}; give an ISO 3166-1 alpha-3 code such as USA, or an intensity")
    return zones()[code]


class StaticIntensity:
    """The annual mean of a zone, or one constant of the user's."""

    signal: Signal = "average"

    def __init__(self, zone: str, *, grams_per_kwh: float | None = None, source: str = "configured") -> None:
        if grams_per_kwh is None:
            found = find_zone(zone)
            self._reading = IntensityReading(
                found.grams_per_kwh, found.code, found.label, Quality.STATIC, carbon_free_ratio=found.carbon_free_ratio
            )
        else:
            if not grams_per_kwh >= 0:
                raise BadInput(f"intensity must be at least 0 g/kWh, got {grams_per_kwh}")
            self._reading = IntensityReading(grams_per_kwh, zone, source, Quality.STATIC)
        self.zone = self._reading.zone
        self.source = self._reading.source

    @property
    def reading(self) -> IntensityReading:
        return self._reading

    async def latest(self) -> IntensityReading:
        return self._reading

    async def forecast(self) -> tuple[IntensityReading, ...]:
        return ()
