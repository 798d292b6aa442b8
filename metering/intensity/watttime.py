"""WattTime, API v3: marginal emissions of a balancing area, pounds per MWh converted to g/kWh.

Marginal figures say what one more kWh causes. They are never mixed with averages: readings carry
``signal="marginal"``, and :class:`metering.intensity.resilient.ResilientIntensity` refuses an average fallback.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from metering.intensity.live import Unauthorised, get_json, moment, number, rows
from metering.intensity.reading import IntensityReading, IntensityUnavailable, Quality, Signal
from metering.units import GRAMS_PER_KWH_PER_POUND_PER_MWH

if TYPE_CHECKING:
    import httpx

_POUNDS_PER_MWH = ("lbs_co2_per_mwh", "lbs_co2e_per_mwh", "lb/mwh", "lbs/mwh")


def grams_per_kwh_from_pounds_per_mwh(value: float) -> float:
    """1 lb = 0.45359237 kg exactly.

    >>> round(grams_per_kwh_from_pounds_per_mwh(412.5), 3)
    187.107
    """
    return value * GRAMS_PER_KWH_PER_POUND_PER_MWH


class WattTime:
    """Forecast of one region (``CAISO_NORTH``); the latest figure is the forecast's for now."""

    source = "watttime co2_moer"
    signal: Signal = "marginal"

    def __init__(
        self,
        client: httpx.AsyncClient,
        region: str,
        username: str,
        password: str,
        *,
        base_url: str = "https://api.watttime.org",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.zone = region
        self._client = client
        self._login = (username, password)
        self._base_url = base_url.rstrip("/")
        self._now = now
        self._token: str | None = None

    async def latest(self) -> IntensityReading:
        points = await self._points(Quality.ESTIMATED)
        begun = [point for point in points if point.at is not None and point.at <= self._now()]
        return begun[-1] if begun else points[0]

    async def forecast(self) -> tuple[IntensityReading, ...]:
        return tuple(await self._points(Quality.FORECAST))

    async def _points(self, quality: Quality) -> list[IntensityReading]:
        content = await self._get()
        meta = content.get("meta")
        units = str(meta.get("units", "")) if isinstance(meta, dict) else ""
        if units.casefold() not in _POUNDS_PER_MWH:
            raise IntensityUnavailable(f"{self.source} answered in {units or 'no'} units, pounds per MWh expected")
        points = [
            IntensityReading(
                grams_per_kwh_from_pounds_per_mwh(number(row["value"], source=self.source, name="value")),
                self.zone,
                self.source,
                quality,
                self.signal,
                moment(row.get("point_time"), source=self.source),
            )
            for row in rows(content, "data", source=self.source)
            if row.get("value") is not None
        ]
        if not points:
            raise IntensityUnavailable(f"{self.source} has no value now (null)")
        return sorted(points, key=lambda point: point.at or datetime.min.replace(tzinfo=UTC))

    async def _get(self) -> dict[str, Any]:
        """With the token at hand; a refused one (they last about 30 minutes) is renewed once."""
        if self._token is not None:
            try:
                return await self._forecast(self._token)
            except Unauthorised:
                self._token = None
        content = await get_json(self._client, f"{self._base_url}/login", source=self.source, auth=self._login)
        token = content.get("token")
        if not isinstance(token, str) or not token:
            raise IntensityUnavailable(f"{self.source} logged in without a token")
        self._token = token
        return await self._forecast(token)

    async def _forecast(self, token: str) -> dict[str, Any]:
        return await get_json(
            self._client,
            f"{self._base_url}/v3/forecast",
            source=self.source,
            params={"region": self.zone, "signal_type": "co2_moer"},
            headers={"Authorization": f"Bearer {token}"},
        )
