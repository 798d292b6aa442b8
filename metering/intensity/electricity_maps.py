"""Electricity Maps, API v3: hourly average intensity by zone, life-cycle emission factors by default, g/kWh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metering.intensity.live import get_json, moment, number, rows
from metering.intensity.reading import IntensityReading, IntensityUnavailable, Quality, Signal

if TYPE_CHECKING:
    import httpx


class ElectricityMaps:
    """Latest and forecast of one zone (``DE``, ``US-CAL-CISO``).

    ``disableCallerLookup`` is always set: without it an unknown zone is answered with the figure of wherever the
    caller sits. The zone of every answer is checked all the same.
    """

    source = "electricitymaps"
    signal: Signal = "average"

    def __init__(
        self,
        client: httpx.AsyncClient,
        zone: str,
        token: str,
        *,
        base_url: str = "https://api.electricitymaps.com",
        with_carbon_free_share: bool = True,
    ) -> None:
        self.zone = zone
        self._client = client
        self._token = token
        self._base_url = base_url.rstrip("/")
        self._with_share = with_carbon_free_share

    async def latest(self) -> IntensityReading:
        content = await self._get("carbon-intensity/latest")
        grams = number(content.get("carbonIntensity"), source=self.source, name="carbonIntensity")
        factors = content.get("emissionFactorType")
        return IntensityReading(
            grams,
            self.zone,
            f"{self.source} {factors}" if isinstance(factors, str) else self.source,
            Quality.ESTIMATED if content.get("isEstimated") else Quality.LIVE,
            self.signal,
            moment(content.get("datetime"), source=self.source),
            await self._carbon_free_ratio() if self._with_share else None,
        )

    async def forecast(self) -> tuple[IntensityReading, ...]:
        content = await self._get("carbon-intensity/forecast")
        return tuple(
            IntensityReading(
                number(row["carbonIntensity"], source=self.source, name="carbonIntensity"),
                self.zone,
                self.source,
                Quality.FORECAST,
                self.signal,
                moment(row.get("datetime"), source=self.source),
            )
            for row in rows(content, "forecast", source=self.source)
            if row.get("carbonIntensity") is not None
        )

    async def _carbon_free_ratio(self) -> float | None:
        """Optional: a plan without the power breakdown still has its intensity."""
        try:
            content = await self._get("power-breakdown/latest")
            percent = number(content.get("fossilFreePercentage"), source=self.source, name="fossilFreePercentage")
        except IntensityUnavailable:
            return None
        return percent / 100 if percent <= 100 else None

    async def _get(self, what: str) -> dict[str, Any]:
        content = await get_json(
            self._client,
            f"{self._base_url}/v3/{what}",
            source=self.source,
            params={"zone": self.zone, "disableCallerLookup": "true"},
            headers={"auth-token": self._token},
        )
        if content.get("zone") != self.zone:
            raise IntensityUnavailable(f"{self.source} answered for zone {content.get('zone')!r}, not {self.zone!r}")
        return content
