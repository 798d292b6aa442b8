"""The grid intensity in use: renewed in the background, never while a request waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from metering.errors import UnknownZone
from metering.intensity.choose import choose_intensity
from metering.intensity.reading import CarbonIntensity, IntensityReading, IntensityUnavailable, Quality
from metering.intensity.static import StaticIntensity, find_zone
from metering.settlement import IntensityStamp
from serving.metering_settings import MeteringSettings

if TYPE_CHECKING:
    import httpx


def configured_intensity(metering: MeteringSettings, client: httpx.AsyncClient | None = None) -> CarbonIntensity:
    """The configured source; a live one needs ``client``.

    Raises:
        BadInput: what the source needs is missing or unreadable.
    """
    wanted = metering.intensity
    if wanted.source == "static":
        return StaticIntensity(metering.zone, grams_per_kwh=metering.intensity_grams_per_kwh)
    zone = wanted.zone or metering.zone
    token = wanted.token.get_secret_value() if wanted.token is not None else None
    return choose_intensity(
        wanted.source,
        zone,
        client=client,
        fallback_zone=_country(zone, metering.zone) if wanted.source != "uk" else None,
        token=token,
        username=wanted.username,
        password=token,
        trace=wanted.trace,
        repeat_trace=wanted.repeat_trace,
    )


def first_stamp(metering: MeteringSettings) -> IntensityStamp | None:
    """What windows are booked with until the source has answered; None where only a marginal figure will do."""
    if metering.intensity.source == "watttime":
        return None
    if metering.intensity_grams_per_kwh is not None:
        return IntensityStamp.of(StaticIntensity(metering.zone, grams_per_kwh=metering.intensity_grams_per_kwh).reading)
    zone = metering.intensity.zone or metering.zone
    country = "GBR" if metering.intensity.source == "uk" else _country(zone, metering.zone)
    return IntensityStamp.of(StaticIntensity(country).reading)


def stand_in(metering: MeteringSettings) -> IntensityStamp | None:
    """The annual mean in place of a configured source that cannot be read at all, and labelled so."""
    stamp = first_stamp(metering)
    return None if stamp is None else replace(stamp, source=f"{stamp.source} (in place of {metering.intensity.source})")


def _country(zone: str, otherwise: str) -> str:
    """The country that a source's zone tells, else the configured one."""
    try:
        return find_zone(zone).code
    except UnknownZone:
        return otherwise


class IntensityFeed:
    """Asks the source every so often and hands on what it says.

    Args:
        put: takes the stamp for the windows to come; None where there is no figure of the source's signal.
        on_fault: ``intensity_fallback`` or ``intensity_stale`` for a figure that stands in for the source's own,
            ``intensity_unavailable`` for none at all. Once a refresh.
        put_ahead: takes the source's forecast, to be shown; nothing is booked with it.
    """

    def __init__(
        self,
        source: CarbonIntensity,
        put: Callable[[IntensityStamp | None], None],
        on_fault: Callable[[str], None],
        *,
        refresh_seconds: float,
        put_ahead: Callable[[tuple[IntensityReading, ...]], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._put = put
        self._on_fault = on_fault
        self._refresh_seconds = refresh_seconds
        self._put_ahead = put_ahead
        self._sleep = sleep
        self._last: IntensityReading | None = None

    async def run(self) -> None:
        while True:
            await self.refresh()
            await self._sleep(self._refresh_seconds)

    async def refresh(self) -> None:
        """Ask once. Whatever the source does, the meter goes on."""
        try:
            reading = await self._source.latest()
        except IntensityUnavailable:
            self._on_fault("intensity_unavailable")
            self._last = None
            self._put(None)
            return
        except Exception:
            # a defect in the reader of a source must not end the feed: the last figure stays, as a stale one
            self._on_fault("intensity_unavailable")
            if self._last is not None and self._last.quality is not Quality.STATIC:
                self._put(IntensityStamp.of(replace(self._last, quality=Quality.STALE)))
            return
        self._last = reading
        if reading.fallback_from is not None:
            self._on_fault("intensity_fallback")
        elif reading.quality is Quality.STALE:
            self._on_fault("intensity_stale")
        self._put(IntensityStamp.of(reading))
        try:
            ahead = await self._source.forecast()
        except Exception:
            ahead = ()
        self._put_ahead(ahead)
