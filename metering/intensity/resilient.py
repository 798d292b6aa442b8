"""A source that always answers: cached, one call at a time, stale for a while, then the static figure; all counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from metering.errors import BadInput
from metering.intensity.reading import CarbonIntensity, IntensityReading, IntensityUnavailable, Quality


class ResilientIntensity:
    """Wraps a live source for the meter, which must never wait long nor fail for want of a figure.

    A reading is kept for ``fresh``. When the source then fails, the last one is given as ``stale`` until ``stale`` has
    passed since it was had; after that the fallback answers, naming the source that should have. A failing source is
    asked again at most every ``retry``. A reading whose own time is older than ``stale`` is labelled stale as well.

    Attributes:
        failures: failed calls by kind: ``latest``, ``forecast``.
        served: readings given out, by quality.

    Raises:
        BadInput: the fallback answers another signal: average and marginal figures are never mixed. A marginal source
            may have no fallback; it then fails when it is too old.
    """

    def __init__(
        self,
        source: CarbonIntensity,
        fallback: CarbonIntensity | None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        fresh: timedelta = timedelta(minutes=5),
        stale: timedelta = timedelta(hours=2),
        retry: timedelta = timedelta(seconds=30),
        timeout_seconds: float = 10.0,
    ) -> None:
        if fallback is not None and fallback.signal != source.signal:
            raise BadInput(
                f"{source.source} is {source.signal} and {fallback.source} is {fallback.signal}: the two are never "
                "mixed; give a fallback of the same signal, or none"
            )
        self.zone, self.source, self.signal = source.zone, source.source, source.signal
        self._live, self._fallback = source, fallback
        self._now, self._fresh, self._stale, self._retry = now, fresh, stale, retry
        self._timeout = timeout_seconds
        self._last: tuple[datetime, IntensityReading] | None = None
        self._ahead: tuple[datetime, tuple[IntensityReading, ...]] | None = None
        self._failed_at: datetime | None = None
        self._why = ""
        self._lock = asyncio.Lock()
        self.failures: Counter[str] = Counter()
        self.served: Counter[str] = Counter()

    async def latest(self) -> IntensityReading:
        reading = await self._current()
        self.served[reading.quality] += 1
        return reading

    async def forecast(self) -> tuple[IntensityReading, ...]:
        """The source's forecast, kept for ``fresh``; the last one, or nothing, while the source fails."""
        async with self._lock:
            now = self._now()
            if self._ahead is None or now - self._ahead[0] >= self._fresh:
                try:
                    self._ahead = now, await asyncio.wait_for(self._live.forecast(), self._timeout)
                except (IntensityUnavailable, TimeoutError):
                    self.failures["forecast"] += 1
            return (
                tuple(point for point in self._ahead[1] if point.at is None or point.at >= now) if self._ahead else ()
            )

    async def _current(self) -> IntensityReading:
        async with self._lock:
            now = self._now()
            if self._last is not None and now - self._last[0] < self._fresh:
                return self._aged(self._last[1], now)
            if self._failed_at is None or now - self._failed_at >= self._retry:
                try:
                    reading = await asyncio.wait_for(self._live.latest(), self._timeout)
                except (IntensityUnavailable, TimeoutError) as error:
                    self.failures["latest"] += 1
                    self._failed_at, self._why = now, str(error) or "timed out"
                else:
                    self._last, self._failed_at = (now, reading), None
                    return self._aged(reading, now)
            if self._last is not None and now - self._last[0] < self._stale:
                return replace(self._last[1], quality=Quality.STALE)
        if self._fallback is None:
            raise IntensityUnavailable(f"{self._why}; no fallback of the same signal is configured")
        return replace(await self._fallback.latest(), fallback_from=self.source)

    def _aged(self, reading: IntensityReading, now: datetime) -> IntensityReading:
        if reading.at is not None and now - reading.at > self._stale:
            return replace(reading, quality=Quality.STALE)
        return reading
