"""The UK's Carbon Intensity API (National Energy System Operator): half-hourly average of Great Britain, no key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from metering.intensity.live import get_json, moment, number, rows
from metering.intensity.reading import IntensityReading, Quality, Signal

if TYPE_CHECKING:
    import httpx


class UkCarbonIntensity:
    """The half hour running and the 48 hours ahead. ``actual`` is null until the half hour is settled: the
    forecast for it is then taken and labelled ``estimated``."""

    zone = "GB"
    source = "carbonintensity.org.uk"
    signal: Signal = "average"

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        base_url: str = "https://api.carbonintensity.org.uk",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._now = now

    async def latest(self) -> IntensityReading:
        row = (await self._rows("/intensity"))[0]
        figures = _intensity(row)
        actual = figures.get("actual")
        if actual is not None:
            return self._reading(row, actual, Quality.LIVE)
        return self._reading(row, figures.get("forecast"), Quality.ESTIMATED)

    async def forecast(self) -> tuple[IntensityReading, ...]:
        start = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
        return tuple(
            self._reading(row, _intensity(row)["forecast"], Quality.FORECAST)
            for row in await self._rows(f"/intensity/{start}/fw48h")
            if _intensity(row).get("forecast") is not None
        )

    async def _rows(self, path: str) -> list[Mapping[str, Any]]:
        content = await get_json(self._client, self._base_url + path, source=self.source)
        return rows(content, "data", source=self.source)

    def _reading(self, row: Mapping[str, Any], grams: Any, quality: Quality) -> IntensityReading:
        return IntensityReading(
            number(grams, source=self.source, name="intensity"),
            self.zone,
            self.source,
            quality,
            self.signal,
            moment(row.get("from"), source=self.source),
        )


def _intensity(row: Mapping[str, Any]) -> Mapping[str, Any]:
    figures = row.get("intensity")
    return figures if isinstance(figures, Mapping) else {}
