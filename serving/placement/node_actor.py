"""The node's meter as a Ray actor: one per node, shared by its replicas, exporting the node's series."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client import CollectorRegistry, multiprocess

from metering.accounts import FinalReceipt
from metering.books import ClosedWindow
from metering.errors import BadInput
from metering.history import HistoryStore
from metering.history_rows import served_rows, window_rows
from metering.intensity.reading import IntensityReading
from metering.power.base import Boundary
from metering.receipt import Receipt
from metering.settlement import Acknowledgement, IntensityStamp
from metering.weights import WorkModel
from metering.work import WorkBatch
from serving.config import GatewayConfig
from serving.metrics import Metrics
from serving.operations.decisions import DECISIONS, DecisionLog
from serving.operations.drift_references import DRIFT, References
from serving.operations.drift_telling import Telling
from serving.operations.engine_drift import EngineWatch
from serving.operations.event_series import EventSeries
from serving.operations.events import EVENTS, EventLog
from serving.placement.drift_rebases import RayRebases
from serving.placement.exporter import NodeExporter
from serving.placement.history import HistoryKeeper, history_file
from serving.placement.intensity import IntensityFeed, configured_intensity, first_stamp, stand_in
from serving.placement.key_watch import build_keys
from serving.placement.metering_setup import build_node_meter, node_power
from serving.placement.node_metrics import NodeMetrics
from serving.placement.presence import Presence
from serving.placement.recently_seen import node_board, note_left, target_board
from serving.placement.scrape import scraper
from serving.placement.telemetry import telling
from serving.tuning.engine_model import EngineModel

NANO = 1e9
TICKS_PER_WINDOW = 4
SECONDS_PER_DAY = 86_400.0
_RECENT = 200
"""Final receipts that can be listed; a single one is found for longer by its id."""
_MOST_AHEAD = 96
"""Readings of a forecast that are told: two days of half hours; a trace knows years."""
_QUESTION_SECONDS = 1.0
"""Above what finding the living meters and noting them takes."""
_KEYS_SECONDS = 1.0
"""How soon a change of the key file counts for the node's exporter."""
PROFILES = "profiles.pickle"
"""In the run's own folder, beside the metrics."""
KEPT = "meter.pickle"
"""There too: where the meter's counters stood when it last booked."""
LEFT = "meter.left"
"""There where the meter has ended because nobody needed it: the next one goes on, and nothing went wrong."""


class NodeMeterActor:
    """An async actor: every method runs on one event loop, so the core needs no locks."""

    def __init__(
        self, config: GatewayConfig, multiprocess_folder: str, leave_after_seconds: float | None = None
    ) -> None:
        """``leave_after_seconds``: it ends after so long without a replica; None: it stays."""
        self._presence = Presence(leave_after_seconds)
        self._leaving = False
        power = node_power(config)
        self._devices = power.devices
        self._node = build_node_meter(config, power)
        self._folder = Path(multiprocess_folder)
        metrics = Metrics(CollectorRegistry())
        self._export = NodeMetrics(metrics)
        self._events = EventLog(
            self._folder.parent / EVENTS, recorded=lambda kind: metrics.add("wattgate_events_total", 1, kind)
        )
        self._decisions = DecisionLog(self._folder.parent / DECISIONS)
        self._engines = self._watch_engines(config, telling(metrics, self._events))
        self._stamp: IntensityStamp | None = None
        self._metering = config.metering
        self._interval = config.metering.window_seconds / TICKS_PER_WINDOW
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._keeper: HistoryKeeper | None = None
        if config.metering.history.enabled:
            path = config.metering.history.path or history_file()
            keep_seconds = config.metering.history.keep_days * SECONDS_PER_DAY
            self._keeper = HistoryKeeper(HistoryStore(path), self._export.fault, keep_seconds=keep_seconds)
        self._ahead: tuple[IntensityReading, ...] = ()
        self._recent: deque[tuple[float, FinalReceipt]] = deque(maxlen=_RECENT)
        self._exporter: NodeExporter | None = None
        self._port = config.server.metrics_port
        if config.server.metrics_port is not None:
            keys, self._key_watch = build_keys(config.access)
            scrape = scraper(multiprocess_folder, EventSeries(self._events))
            self._exporter = NodeExporter(keys, scrape, config.server.host, config.server.metrics_port)
        self._profiles: dict[str, WorkModel] = {}
        self._reading = False
        """A thread reads the meters: what they remember is half of one reading and half of the next."""
        self._recall()
        self._node.start(time.monotonic())

    def _watch_engines(self, config: GatewayConfig, telling: Telling) -> EngineWatch | None:
        if config.telemetry.drift_window_requests == 0:
            return None
        return EngineWatch(
            telling,
            fitted=self._fitted(config.telemetry.engine_model),
            references=References(self._folder.parent / DRIFT, rebases=RayRebases()),
            later=ThreadPoolExecutor(1, "drift").submit,
        )

    def _recall(self) -> None:
        """After a restart: the models and devices that replicas announced to the actor before, and its counters. The
        energy of what it had not booked, and of its absence, is booked unattributed."""
        try:
            known = pickle.loads((self._folder / PROFILES).read_bytes())
        except OSError:
            return
        if not self._left():
            self._export.fault("meter_restarted")
        try:
            kept = pickle.loads((self._folder / KEPT).read_bytes())
        except OSError:
            kept = None
        self._node.resume(kept)
        self._know(known)

    def _left(self) -> bool:
        """Whether the one before ended on purpose."""
        try:
            (self._folder / LEFT).unlink()
        except OSError:
            return False
        return True

    def _know(self, profiles: Iterable[WorkModel]) -> None:
        for profile in profiles:
            self._node.register(profile)
            self._profiles[profile.name] = profile

    async def start(self) -> None:
        """Begin to close windows; idempotent."""
        if self._tasks:
            return
        loops = [self._tick(), self._follow_intensity()]
        if self._exporter is not None:
            self._exporter.start()
            loops.append(self._follow_keys())
        if self._keeper is not None:
            loops.append(self._keeper.run())
        self._tasks = tuple(asyncio.create_task(loop) for loop in loops)

    async def _follow_keys(self) -> None:
        while True:
            await asyncio.sleep(_KEYS_SECONDS)
            await self._key_watch.refresh()

    async def _follow_intensity(self) -> None:
        self._use(first_stamp(self._metering))
        async with httpx.AsyncClient() as client:
            try:
                source = configured_intensity(self._metering, client)
            except BadInput:
                # a trace that cannot be read: the annual mean stays in use, and says so by its label
                self._use(stand_in(self._metering))
                self._export.fault("intensity_unavailable")
                return
            seconds = self._metering.intensity.refresh_seconds
            feed = IntensityFeed(
                source, self._use, self._export.fault, refresh_seconds=seconds, put_ahead=self._see_ahead
            )
            await feed.run()

    def _see_ahead(self, ahead: tuple[IntensityReading, ...]) -> None:
        self._ahead = ahead

    async def intensity(self) -> dict[str, Any]:
        """The figure in use and the source's forecast, JSON-ready."""
        stamp = self._stamp
        now = None
        if stamp is not None:
            now = {
                "grams_per_kwh": stamp.grams_per_kwh,
                "zone": stamp.zone,
                "source": stamp.source,
                "signal": stamp.signal,
                "quality": stamp.quality,
                "carbon_free_ratio": stamp.carbon_free_ratio,
            }
        ahead = [
            {"at": reading.at.isoformat(), "grams_per_kwh": reading.grams_per_kwh}
            for reading in self._ahead[:_MOST_AHEAD]
            if reading.at is not None
        ]
        return {"object": "intensity", "now": now, "forecast": ahead}

    def _use(self, stamp: IntensityStamp | None) -> None:
        self._node.set_intensity(stamp)
        self._export.intensity(stamp)
        before, self._stamp = _source(self._stamp), stamp
        if before is not None and before != _source(stamp):
            self._events.record("intensity_source", f"grid intensity: {before} -> {_source(stamp) or 'unknown'}")

    def _fitted(self, path: Path | None) -> EngineModel | None:
        try:
            return None if path is None else EngineModel.load(path)
        except BadInput:
            # metering goes on without what it would be held against
            self._export.fault("engine_model_unreadable")
            return None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.advance()
            if not self._leaving and not self._presence.needed(bool(self._node.sources_alive)):
                self._leaving = True
                ask_to_leave()

    async def advance(self, now_seconds: float | None = None) -> None:
        """Close what can be closed, and export and keep it; the meters are read off the event loop."""
        due = self._node.due(now_seconds)
        self._reading = due
        readings = await asyncio.to_thread(self._node.read_meters, now_seconds) if due else None
        self._reading = False
        if closed := self._node.advance(readings, now_seconds):
            self._take(closed)
            self._sweep_dead()
        # what was booked just now was exported too: whoever starts anew must not tell it again
        if due or closed:
            self._write(KEPT, self._node.kept())

    def _take(self, closed: Iterable[ClosedWindow]) -> None:
        for window in closed:
            self._export.window(window, self._peaks)
            self._keep(window)
            if self._engines is not None:
                self._engines.closed(window)
            self._recent.extend((time.time(), final) for final in window.finals)
        self._export.books(self._node)

    def _write(self, name: str, what: object) -> None:
        # written whole or not at all: whoever starts anew reads it
        draft = self._folder / f"{name}.draft"
        try:
            draft.write_bytes(pickle.dumps(what))
            draft.replace(self._folder / name)
        except OSError:
            # a full disk costs what a restart would go on with, and nothing now
            self._export.fault("meter_not_kept")

    def _forget(self) -> None:
        # all is booked: a gateway that finds this run's folder later begins anew, it does not go on from here
        for name in (KEPT, PROFILES, LEFT):
            with suppress(OSError):
                (self._folder / name).unlink(missing_ok=True)

    @property
    def _peaks(self) -> dict[str, float | None]:
        return {name: profile.peak_flops for name, profile in self._profiles.items()}

    def _keep(self, window: ClosedWindow) -> None:
        if self._keeper is not None:
            self._keeper.add(
                window_rows(
                    window,
                    method=self._node.power_method,
                    power=self._node.power,
                    peak_flops=self._peaks,
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

    async def expect(self, source: str) -> None:
        """A replica is loading, which will ``attach``: it must find this actor then."""
        self._presence.expect(source)
        await self.start()

    async def attach(
        self,
        source: str,
        profiles: Sequence[WorkModel],
        engines: Sequence[str] | None = None,
        *,
        gpus: Sequence[str] = (),
        host_only: bool = False,
    ) -> dict[str, Any]:
        """Announce a replica and its models; answers what the replica needs to know of the node.

        ``engines``: names under `models`, where the replica's work is on these models' devices only;
        ``gpus``: UUIDs of those it runs on, which say more; ``host_only``: it runs on none.
        """
        self._presence.arrived(source)
        await self.start()
        self._know(profiles)
        self._write(PROFILES, list(self._profiles.values()))
        self._node.attach(source, frozenset() if host_only else self._devices_of(engines, gpus))
        if not self._reading:
            self._write(KEPT, self._node.kept())
        return {"pid": os.getpid()}

    def _devices_of(self, engines: Sequence[str] | None, gpus: Sequence[str]) -> frozenset[str] | None:
        """None: all of the node."""
        metered = frozenset(gpus).intersection(component.name for component in self._node.components)
        if metered:
            return metered
        known = [self._devices.get(name) for name in engines] if engines is not None else [None]
        return None if None in known else frozenset().union(*(names for names in known if names is not None))

    async def submit(self, batch: WorkBatch) -> Acknowledgement:
        # a restarted actor is attached to by nobody: the first report starts it
        await self.start()
        acknowledgement = self._node.submit(batch)
        if acknowledgement.booked and batch.served:
            self._export.served(batch.served)
            if self._keeper is not None:
                self._keeper.add(served_rows(batch.served, time.time()))
        return acknowledgement

    async def stop(self) -> None:
        """At an orderly end, after the replicas' last reports: book the open window and write the history."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._take(self._node.drain())
        self._forget()
        if self._keeper is not None:
            await self._keeper.flush()

    async def leave(self) -> None:
        """End, so that the node can be given back: all is booked and kept. One that comes before that keeps it here."""
        try:
            if not self._may_leave():
                return
            self._take(self._node.drain())
            if self._keeper is not None:
                await self._keeper.flush()
            with suppress(Exception):
                # else it counts as lost for a while
                await asyncio.to_thread(self._note_left)
                # a question under way may have met it before, and note it after
                await asyncio.sleep(_QUESTION_SECONDS)
                await asyncio.to_thread(self._note_left)
            # a replica may have come meanwhile: the loops have gone on, and so does the meter
            if self._may_leave():
                text = "no replica is left on this node: its devices are not metered until one comes"
                self._events.record("model", text)
                self._write(KEPT, self._node.kept())
                (self._folder / LEFT).touch()
                exit_process()
        finally:
            self._leaving = False

    def _may_leave(self) -> bool:
        return not self._reading and not self._presence.needed(bool(self._node.sources_alive))

    def _note_left(self) -> None:
        address, now = own_address(), time.time()
        note_left(node_board(), address, now)
        note_left(target_board(), f"{address}:{self._port}", now)

    async def receipt(self, tenant: str, request_id: str) -> Receipt | None:
        return self._node.receipt(tenant, request_id)

    async def finals(self, keys: list[tuple[str, str]]) -> list[Receipt | None]:
        """What of these is final; None for the rest."""
        found = [self._node.final(tenant, request_id) for tenant, request_id in keys]
        return [None if final is None else final.receipt for final in found]

    async def recent(self, tenant: str | None) -> list[dict[str, Any]]:
        """The last final receipts of a tenant, newest first; None: of all. ``at_seconds``: when each became final."""
        found = ((at, final) for at, final in reversed(self._recent) if tenant in (None, final.tenant))
        return [
            {"at_seconds": at, "tenant": final.tenant, "model": final.model, **final.receipt.as_dict()}
            for at, final in found
        ]

    async def events(self, since_seconds: float) -> list[dict[str, Any]]:
        """What was recorded on this node, oldest first."""
        return [asdict(event) for event in await asyncio.to_thread(self._events.read, since_seconds)]

    async def decisions(self, since_seconds: float) -> list[dict[str, Any]]:
        """Of the controllers of this node's replicas, oldest first."""
        return await asyncio.to_thread(self._decisions.read, since_seconds)

    async def books(self) -> dict[str, Any]:
        """The node's totals, JSON-ready."""
        return self._node.books().as_dict()

    async def metered_joules(self, source: str) -> dict[str, float] | None:
        """By component, the energy up to the last closed window of what the replica alone works on: its devices, and
        the host where no other replica has any. None where something of its is not metered, or others work on it."""
        mine = self._node.accelerators_of(source)
        neighbours = self._node.sources_alive - {source}
        others = frozenset().union(*(self._node.accelerators_of(neighbour) for neighbour in neighbours))
        metered = {c.component.name: c.meter.energy_nanojoules for c in self._node.books().components}
        if not mine or mine & others or not all(metered[name] for name in mine):
            return None
        hosts = {c.name for c in self._node.components if c.boundary is Boundary.HOST}
        return {name: metered[name] / NANO for name in sorted(mine if others else mine | hosts)}


def ask_to_leave() -> None:
    """Only a call of the actor's may end it, and not one of its loops."""
    import ray

    ray.get_runtime_context().current_actor.leave.remote()


def exit_process() -> None:
    from ray.actor import exit_actor

    exit_actor()


def own_address() -> str:
    """The node's, as the cluster knows it."""
    import ray

    return str(ray.util.get_node_ip_address())


def _source(stamp: IntensityStamp | None) -> str | None:
    """Where an intensity is from, whatever its value."""
    return None if stamp is None else f"{stamp.zone}, {stamp.source}, {stamp.signal}"
