"""The node's meter as a Ray actor: one per node, shared by its replicas, exporting the node's series."""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client import CollectorRegistry, multiprocess

from metering.books import ClosedWindow
from metering.errors import BadInput
from metering.history import HistoryStore
from metering.history_rows import served_rows, window_rows
from metering.model_profile import ModelProfile
from metering.node import NodeMeter
from metering.power.base import Boundary
from metering.receipt import Receipt
from metering.settlement import Acknowledgement, IntensityStamp
from metering.work import WorkBatch
from serving.config import GatewayConfig
from serving.metrics import Metrics
from serving.placement.history import HistoryKeeper, history_file
from serving.placement.intensity import IntensityFeed, configured_intensity, first_stamp
from serving.placement.metering_setup import build_node_meter, node_power

NANO = 1e9
TICKS_PER_WINDOW = 4
SECONDS_PER_DAY = 86_400.0
PROFILES = "profiles.pickle"
"""In the run's own folder, beside the metrics."""


class NodeMetrics:
    """Closed windows and final receipts as Prometheus series."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._faults: dict[str, int] = {}
        self._intensity: tuple[str, ...] | None = None

    def fault(self, name: str) -> None:
        self._metrics.add("wattgate_meter_faults_total", 1, name)

    def intensity(self, stamp: IntensityStamp | None) -> None:
        """The figure in use. The series it had under other labels cannot be deleted here: it becomes NaN."""
        labels = None if stamp is None else (stamp.zone, stamp.source, stamp.signal, stamp.quality)
        if self._intensity is not None and self._intensity != labels:
            self._metrics.set("wattgate_intensity_grams_per_kwh", math.nan, *self._intensity)
            self._metrics.set("wattgate_carbon_free_ratio", math.nan, *self._intensity[:2])
        self._intensity = labels
        if stamp is not None and labels is not None:
            self._metrics.set("wattgate_intensity_grams_per_kwh", stamp.grams_per_kwh, *labels)
            if stamp.carbon_free_ratio is not None:
                self._metrics.set("wattgate_carbon_free_ratio", stamp.carbon_free_ratio, *labels[:2])

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
            overhead = operational = embodied = devices = electricity = 0
            for boundary in Boundary:
                amounts = line.work[boundary]
                add("wattgate_request_joules_total", amounts.energy_nanojoules / NANO, model, tenant, boundary.value)
                overhead += amounts.overhead_nanojoules
                operational += amounts.operational_nanograms
                embodied += amounts.embodied_nanograms
                devices += amounts.device_nanocost
                electricity += amounts.electricity_nanocost
            idle = line.idle
            add("wattgate_request_joules_total", idle.energy_nanojoules / NANO, model, tenant, "idle")
            overhead += idle.overhead_nanojoules
            add("wattgate_request_joules_total", overhead / NANO, model, tenant, "overhead")
            operational += idle.operational_nanograms
            embodied += idle.embodied_nanograms
            marginal = closed.stamp is not None and closed.stamp.signal == "marginal"
            scope = "operational_marginal" if marginal else "operational"
            add("wattgate_request_grams_total", operational / NANO, model, tenant, scope)
            add("wattgate_request_grams_total", embodied / NANO, model, tenant, "embodied")
            for cause, nanocost in (
                ("devices", devices + idle.device_nanocost),
                ("electricity", electricity + idle.electricity_nanocost),
            ):
                if nanocost:
                    add("wattgate_request_cost_total", nanocost / NANO, model, tenant, cause)

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
        power = node_power(config)
        self._devices = power.devices
        self._node = build_node_meter(config, power)
        self._node.start(time.monotonic())
        self._folder = Path(multiprocess_folder)
        self._export = NodeMetrics(Metrics(CollectorRegistry()))
        self._metering = config.metering
        self._interval = config.metering.window_seconds / TICKS_PER_WINDOW
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._keeper: HistoryKeeper | None = None
        if config.metering.history.enabled:
            path = config.metering.history.path or history_file()
            keep_seconds = config.metering.history.keep_days * SECONDS_PER_DAY
            self._keeper = HistoryKeeper(HistoryStore(path), self._export.fault, keep_seconds=keep_seconds)
        self._profiles: dict[str, ModelProfile] = {}
        self._recall()

    def _recall(self) -> None:
        """After a restart: the models that replicas announced to the actor before. What it had not booked is lost."""
        try:
            known = pickle.loads((self._folder / PROFILES).read_bytes())
        except OSError:
            return
        self._export.fault("meter_restarted")
        self._know(known)

    def _know(self, profiles: Iterable[ModelProfile]) -> None:
        for profile in profiles:
            self._node.register(profile)
            self._profiles[profile.name] = profile

    async def start(self) -> None:
        """Begin to close windows; idempotent."""
        if self._tasks:
            return
        loops = [self._tick(), self._follow_intensity()]
        if self._keeper is not None:
            loops.append(self._keeper.run())
        self._tasks = tuple(asyncio.create_task(loop) for loop in loops)

    async def _follow_intensity(self) -> None:
        self._use(first_stamp(self._metering))
        async with httpx.AsyncClient() as client:
            try:
                source = configured_intensity(self._metering, client)
            except BadInput:
                # a trace that cannot be read: the annual mean stays in use, and says so by its label
                self._export.fault("intensity_unavailable")
                return
            seconds = self._metering.intensity.refresh_seconds
            await IntensityFeed(source, self._use, self._export.fault, refresh_seconds=seconds).run()

    def _use(self, stamp: IntensityStamp | None) -> None:
        self._node.set_intensity(stamp)
        self._export.intensity(stamp)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.advance()

    async def advance(self, now_seconds: float | None = None) -> None:
        """Close what can be closed, and export and keep it; the meters are read off the event loop."""
        due = self._node.due(now_seconds)
        readings = await asyncio.to_thread(self._node.read_meters, now_seconds) if due else None
        if closed := self._node.advance(readings, now_seconds):
            self._take(closed)
            self._sweep_dead()

    def _take(self, closed: Iterable[ClosedWindow]) -> None:
        for window in closed:
            self._export.window(window, self._node.power_method.value, self._node.power)
            self._keep(window)
        self._export.books(self._node)

    def _keep(self, window: ClosedWindow) -> None:
        if self._keeper is not None:
            self._keeper.add(
                window_rows(
                    window,
                    method=self._node.power_method,
                    power=self._node.power,
                    peak_flops={name: profile.peak_flops for name, profile in self._profiles.items()},
                    embodied=self._node.settings.embodied,
                    priced=self._node.settings.prices_per_hour,
                    price_per_kwh=self._node.settings.price_per_kwh,
                )
            )

    def _sweep_dead(self) -> None:
        # gauges of a replica that was killed would be added up for ever; its counters stay, by design
        for pid in {int(path.stem.rsplit("_", 1)[1]) for path in self._folder.glob("gauge_live*_*.db")}:
            if not psutil.pid_exists(pid):
                multiprocess.mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]

    async def attach(self, source: str, profiles: list[ModelProfile], engine: str | None = None) -> dict[str, Any]:
        """Announce a replica and its models; answers what the replica needs to know of the node.

        ``engine``: the model's name under `models`, where the replica runs on that model's devices only.
        """
        await self.start()
        self._know(profiles)
        # written whole or not at all: whoever starts anew reads it
        draft = self._folder / f"{PROFILES}.draft"
        draft.write_bytes(pickle.dumps(list(self._profiles.values())))
        draft.replace(self._folder / PROFILES)
        self._node.attach(source, None if engine is None else self._devices.get(engine))
        return {"pid": os.getpid()}

    async def submit(self, batch: WorkBatch) -> Acknowledgement:
        # a restarted actor is attached to by nobody: the first report starts it
        await self.start()
        acknowledgement = self._node.submit(batch)
        if self._keeper is not None and acknowledgement.booked and batch.served:
            self._keeper.add(served_rows(batch.served, time.time()))
        return acknowledgement

    async def stop(self) -> None:
        """At an orderly end, after the replicas' last reports: book the open window and write the history."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._take(self._node.drain())
        if self._keeper is not None:
            await self._keeper.flush()

    async def receipt(self, tenant: str, request_id: str) -> Receipt | None:
        return self._node.receipt(tenant, request_id)

    async def books(self) -> dict[str, Any]:
        """The node's totals, JSON-ready."""
        return self._node.books().as_dict()
