"""Engine, gateway and node meter in one process: all between a request and its final receipt, no HTTP, no Ray."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from cache.tiers import ResponseCache
from metering.accounts import FinalReceipt
from metering.books import ClosedWindow
from metering.power.base import Component, PowerMeter, Reading
from metering.receipt import Receipt
from metering.settlement import Acknowledgement
from metering.work import Method, WorkBatch, WorkRecord
from serving.admission.queue import AdmissionQueue
from serving.config import GatewayConfig
from serving.engines.base import Engine
from serving.gateway import Gateway
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.placement.metering_setup import build_node_meter, model_profile, node_hardware


class Watched:
    """A power meter that remembers the first and the last of what it read: the meter's own word on the energy."""

    def __init__(self, meter: PowerMeter) -> None:
        self._meter = meter
        self.name, self.method = meter.name, meter.method
        self.first: Reading | None = None
        self.last: Reading | None = None

    @property
    def components(self) -> tuple[Component, ...]:
        return self._meter.components

    def read(self, now_seconds: float) -> Reading:
        self.last = self._meter.read(now_seconds)
        self.first = self.first or self.last
        return self.last

    def close(self) -> None:
        self._meter.close()


class Stack:
    """``async with Stack(...)``; the engine is the caller's."""

    def __init__(self, engine: Engine, config: GatewayConfig) -> None:
        hardware = node_hardware(config)
        self.engine = engine
        self.node = build_node_meter(config)
        self.watched = [Watched(meter) for meter in self.node._meters]
        self.node._meters = tuple(self.watched)
        self.node.start(time.monotonic())
        self.records: list[WorkRecord] = []
        self.windows: list[ClosedWindow] = []
        self.finals: dict[tuple[str, str], FinalReceipt] = {}
        self.faults: list[str] = []
        self.link = MeterLink(
            "bench", self, flush_seconds=0.5, on_fault=self.faults.append,
            host_watts_per_core=hardware.host_watts_per_core, flush_engine=engine.flush,
        )  # fmt: skip
        self.profiles = {model.name: model_profile(model, hardware) for model in engine.models()}
        self.link.profiles = self.profiles
        for profile in self.profiles.values():
            self.node.register(profile)
        self.node.attach("bench")
        self.metrics = Metrics(CollectorRegistry())
        self.gateway = Gateway(
            engine=engine,
            cap=AdmissionQueue(config.admission.max_concurrency, 10_000),
            meter=self.link,
            metrics=self.metrics,
            cache=ResponseCache(secret=b"bench " * 4),
        )
        self.method: Method = self.node.power_method
        self._ticker: asyncio.Task[None] | None = None

    # NodeMeterClient, in the process.

    async def submit(self, batch: WorkBatch) -> Acknowledgement:
        self.records += batch.records
        return self.node.submit(batch)

    async def receipt(self, tenant: str, request_id: str) -> Receipt | None:
        return self.node.receipt(tenant, request_id)

    async def finals(self, keys: Sequence[tuple[str, str]]) -> list[Receipt | None]:
        found = [self.node.final(*key) for key in keys]
        return [None if final is None else final.receipt for final in found]

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            readings = await asyncio.to_thread(self.node.read_meters) if self.node.due() else None
            self._keep(self.node.advance(readings))

    def _keep(self, closed: tuple[ClosedWindow, ...]) -> None:
        self.windows += closed
        for window in closed:
            for final in window.finals:
                self.finals[(final.tenant, final.request_id)] = final

    def meter(self, on: bool) -> None:
        """Start or stop closing windows and sending reports."""
        if on and self._ticker is None:
            self.link.start()
            self._ticker = asyncio.create_task(self._tick())
        elif not on and self._ticker is not None:
            self._ticker.cancel()
            assert self.link._task is not None
            self.link._task.cancel()
            self._ticker = None

    async def finish(self) -> None:
        """Report and book everything there is."""
        self.meter(False)
        await asyncio.sleep(0)
        await self.link.flush()
        self._keep(self.node.drain())
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def stack(engine: Engine, config: GatewayConfig) -> AsyncIterator[Stack]:
    made = Stack(engine, config)
    made.meter(True)
    try:
        yield made
    finally:
        made.meter(False)


def balance(made: Stack) -> dict[str, Any]:
    """The books against the meter's own readings, in integers of nanojoules. ``difference`` must be nothing."""
    books = made.node.books()
    # a model fed with the executed work has no counter to read: then the books' own total stands here
    metered = 0 if made.watched else sum(part.meter.energy_nanojoules for part in books.components)
    for meter in made.watched:
        assert meter.first is not None
        assert meter.last is not None
        for component in meter.components:
            first, last = meter.first.components[component.name], meter.last.components[component.name]
            metered += last.nanojoules - first.nanojoules
    lines = {
        "receipts": sum(final.totals.energy_nanojoules for final in made.finals.values()),
        "idle_carried": sum(part.idle_carried.energy_nanojoules for part in books.components),
        "idle_node": sum(part.idle_node.energy_nanojoules for part in books.components),
        "unattributed": sum(part.unattributed.energy_nanojoules for part in books.components),
    }
    return {
        "meter_nanojoules": metered,
        **{f"{name}_nanojoules": value for name, value in lines.items()},
        "difference_nanojoules": metered - sum(lines.values()),
        "idle_booked_nanojoules": sum(part.idle_booked.energy_nanojoules for part in books.components),
        "idle_shared_nanojoules": sum(part.idle_shared.energy_nanojoules for part in books.components),
        "open_requests": books.open_requests,
        "windows": len(made.windows),
        "gaps": sum(close.energy_nanojoules is None for window in made.windows for close in window.components),
        "balanced": books.balanced,
    }
