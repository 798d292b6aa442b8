"""MFU and MBU of a run as the gateway's own meter tells them at ``/metrics``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_GAUGES = {"wattgate_mfu_ratio": "mfu_ratio", "wattgate_mbu_ratio": "mbu_ratio"}
_FIRST_AFTER_SECONDS = 2.0
"""A metering window of 1 s, and its closing: what the gauges say before is of the time before the run."""
_EVERY_SECONDS = 1.0
"""A metering window."""


class UtilisationWatch:
    """Reads the gauges of the last closed window while requests are sent; its figures are the means of what it read,
    None where a run was too short, the figures need a key that was not given, or the gateway does not know them.
    """

    def __init__(
        self,
        admin_key: str | None = None,
        *,
        first_after_seconds: float = _FIRST_AFTER_SECONDS,
        every_seconds: float = _EVERY_SECONDS,
    ) -> None:
        self._headers = {"authorization": f"Bearer {admin_key}"} if admin_key else {}
        self._first_after_seconds = first_after_seconds
        self._every_seconds = every_seconds
        self._seen: dict[str, list[float]] = {name: [] for name in _GAUGES.values()}

    @asynccontextmanager
    async def during(self, session: aiohttp.ClientSession, base: str, model: str) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch(session, base, model))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self, session: aiohttp.ClientSession, base: str, model: str) -> None:
        await asyncio.sleep(self._first_after_seconds)
        while True:
            try:
                async with session.get(f"{base}/metrics", headers=self._headers) as response:
                    if response.status != 200:
                        return
                    read = gauges(await response.text(), model)
            except (aiohttp.ClientError, TimeoutError, ValueError):
                return
            for name, value in read.items():
                self._seen[name].append(value)
            await asyncio.sleep(self._every_seconds)

    def figures(self) -> dict[str, float | None]:
        return {name: math.fsum(seen) / len(seen) if seen else None for name, seen in self._seen.items()}


def gauges(exposition: str, model: str) -> Mapping[str, float]:
    """MFU and MBU of ``model`` in a Prometheus exposition, those that it has.

    Raises:
        ValueError: it is no exposition.
    """
    return {
        _GAUGES[sample.name]: sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name in _GAUGES and sample.labels.get("model") == model and math.isfinite(sample.value)
    }
