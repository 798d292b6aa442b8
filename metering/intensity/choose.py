"""A source of intensity by its name in a configuration, wrapped so that the meter always gets an answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from metering.errors import BadInput, nearest
from metering.intensity.electricity_maps import ElectricityMaps
from metering.intensity.reading import CarbonIntensity
from metering.intensity.resilient import ResilientIntensity
from metering.intensity.static import StaticIntensity
from metering.intensity.trace import CsvTrace
from metering.intensity.uk import UkCarbonIntensity
from metering.intensity.watttime import WattTime

if TYPE_CHECKING:
    import httpx

SourceName = Literal["static", "electricitymaps", "watttime", "uk", "trace"]


def choose_intensity(
    source: str,
    zone: str,
    *,
    client: httpx.AsyncClient | None = None,
    fallback_zone: str | None = None,
    grams_per_kwh: float | None = None,
    token: str | None = None,
    username: str | None = None,
    password: str | None = None,
    trace: str | Path | None = None,
    repeat_trace: bool = False,
) -> CarbonIntensity:
    """The named source; a live one is cached and falls back to the annual mean of its country.

    Args:
        source: ``static``, ``electricitymaps``, ``watttime``, ``uk`` or ``trace``.
        zone: as the source spells it: ``USA``, ``US-CAL-CISO``, ``CAISO_NORTH``; not used for ``uk``.
        client: for live sources; the caller closes it.
        fallback_zone: country of the fallback where the zone does not tell it; WattTime has no fallback, for its
            figures are marginal and the annual means are averages.
        grams_per_kwh: a constant of the user's, for ``static``.
        token: Electricity Maps.
        username: WattTime.
        password: WattTime.
        trace: CSV file.
        repeat_trace: start it again at its end.

    Raises:
        BadInput: an unknown source, or something that the source needs is missing.
        UnknownZone: a zone without a fallback: name ``fallback_zone``.
    """
    if source == "static":
        return StaticIntensity(zone, grams_per_kwh=grams_per_kwh)
    if source == "trace":
        if trace is None:
            raise BadInput("intensity source trace needs a CSV file")
        recorded = CsvTrace(trace, zone, holes="mark", repeat=repeat_trace)
        return ResilientIntensity(recorded, StaticIntensity(fallback_zone or zone))
    if source not in get_args(SourceName):
        known = get_args(SourceName)
        raise BadInput(f"unknown intensity source {source!r}{nearest(source, known) or '; known: ' + ', '.join(known)}")
    if client is None:
        raise BadInput(f"intensity source {source} needs an HTTP client")
    if source == "uk":
        return ResilientIntensity(UkCarbonIntensity(client), StaticIntensity(fallback_zone or "GBR"))
    if source == "watttime":
        if not username or not password:
            raise BadInput("intensity source watttime needs a username and a password")
        return ResilientIntensity(WattTime(client, zone, username, password), None)
    if not token:
        raise BadInput("intensity source electricitymaps needs a token")
    return ResilientIntensity(ElectricityMaps(client, zone, token), StaticIntensity(fallback_zone or zone))
