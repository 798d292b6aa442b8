"""The node's meter as a Ray actor: one per node, shared by its replicas, exporting the node's series."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, multiprocess

from metering.books import ClosedWindow
from metering.model_profile import ModelProfile
from metering.node import NodeMeter
from metering.power.base import Boundary
from metering.receipt import Receipt
from metering.settlement import Acknowledgement
from metering.work import WorkBatch
from serving.config import GatewayConfig
from serving.metrics import Metrics
from serving.placement.metering_setup import build_node_meter, node_hardware

NANO = 1e9
TICKS_PER_WINDOW = 4


class NodeMetrics:
    """Closed windows and final receipts as Prometheus series."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._faults: dict[str, int] = {}

    def window(self, closed: ClosedWindow, method: str, source: str) -> None:
        add, put = self._metrics.add, self._metrics.set
        for close in closed.components:
            name = close.component.name
            if close.energy_nanojoules is None:
                add("wattgate_meter_faults_total", 1, "gap")
                continue
            joules = close.energy_nanojoules / NANO
            add("wattgate_energy_joules_total", joules, name, close.component.boundary.value, method, source)
            add("wattgate_idle_joules_total", close.idle_nanojoules / NANO, name)
            put("wattgate_power_watts", joules / closed.window.seconds, name)
        for engine in closed.engines:
            if engine.mfu_ratio is not None:
                put("wattgate_mfu_ratio", engine.mfu_ratio, engine.model)
        for (model, tenant), line in closed.lines.items():
            add("wattgate_flops_total", line.flops_prefill, model, "prefill")
            add("wattgate_flops_total", line.flops_decode, model, "decode")
            overhead = operational = embodied = 0
            for boundary in Boundary:
                amounts = line.work[boundary]
                add("wattgate_request_joules_total", amounts.energy_nanojoules / NANO, model, tenant, boundary.value)
                overhead += amounts.overhead_nanojoules
                operational += amounts.operational_nanograms
                embodied += amounts.embodied_nanograms
            idle = line.idle
            add("wattgate_request_joules_total", idle.energy_nanojoules / NANO, model, tenant, "idle")
            overhead += idle.overhead_nanojoules
            add("wattgate_request_joules_total", overhead / NANO, model, tenant, "overhead")
            operational += idle.operational_nanograms
            embodied += idle.embodied_nanograms
            add("wattgate_request_grams_total", operational / NANO, model, tenant, "operational")
            add("wattgate_request_grams_total", embodied / NANO, model, tenant, "embodied")
        if closed.stamp is not None:
            stamp = closed.stamp
            put("wattgate_intensity_grams_per_kwh", stamp.grams_per_kwh, stamp.zone, stamp.source)

    def books(self, node: NodeMeter) -> None:
        books = node.books()
        for component in books.components:
            difference = component.difference.energy_nanojoules / NANO
            self._metrics.set("wattgate_books_difference_joules", difference, component.component.name)
        counters = books.counters
        for fault in (
            "late_records", "malformed_records", "forced_windows", "meter_failures", "meter_resets",
            "dead_sources", "abandoned_requests", "mfu_over_unity", "lost_batches",
        ):  # fmt: skip
            now = int(getattr(counters, fault))
            if (grown := now - self._faults.get(fault, 0)) > 0:
                self._metrics.add("wattgate_meter_faults_total", grown, fault)
            self._faults[fault] = now


class NodeMeterActor:
    """An async actor: every method runs on one event loop, so the core needs no locks."""

    def __init__(self, config: GatewayConfig, multiprocess_folder: str) -> None:
        self._hardware = node_hardware(config)
        self._node = build_node_meter(config, self._hardware)
        self._node.start(time.monotonic())
        self._folder = Path(multiprocess_folder)
        self._export = NodeMetrics(Metrics(CollectorRegistry()))
        self._interval = config.metering.window_seconds / TICKS_PER_WINDOW
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to close windows; idempotent."""
        if self._ticker is None:
            self._ticker = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            readings = await asyncio.to_thread(self._node.read_meters) if self._node.due() else None
            closed = self._node.advance(readings)
            for window in closed:
                self._export.window(window, self._node.power_method.value, self._node.power)
            if closed:
                self._export.books(self._node)
                self._sweep_dead()

    def _sweep_dead(self) -> None:
        # gauges of a replica that was killed would be added up for ever; its counters stay, by design
        for pid in {int(path.stem.rsplit("_", 1)[1]) for path in self._folder.glob("gauge_live*_*.db")}:
            if not psutil.pid_exists(pid):
                multiprocess.mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]

    async def attach(self, source: str, profiles: list[ModelProfile]) -> dict[str, Any]:
        """Announce a replica and its models; answers what the replica needs to know of the node."""
        await self.start()
        for profile in profiles:
            self._node.register(profile)
        self._node.attach(source)
        return {"pid": os.getpid()}

    async def submit(self, batch: WorkBatch) -> Acknowledgement:
        return self._node.submit(batch)

    async def receipt(self, tenant: str, request_id: str) -> Receipt | None:
        return self._node.receipt(tenant, request_id)

    async def books(self) -> dict[str, Any]:
        """The node's totals, JSON-ready."""
        return self._node.books().as_dict()
