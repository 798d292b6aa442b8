"""Finds batches that nobody runs and runs them: new ones, and those whose replica is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp

from serving.batches.inside import InsideAnswer, ask
from serving.batches.run import BatchRun, Surroundings
from serving.batches.settings import BatchSettings
from serving.batches.store import BatchStore, Hold, Overtaken
from serving.metrics import Metrics
from serving.tenancy.tenant import Priority, TenantSettings

log = logging.getLogger("wattgate")

_AGAIN_SECONDS = 60.0
"""Before a batch is tried again that could not be begun, or whose run ended with a fault of ours."""
_SWEEP_SECONDS = 3600.0
_HEADERS = {"x-wattgate-priority": Priority.BATCH.value}


class BatchRunner:
    """Lives on the gateway's event loop. Several replicas may look at one folder: each batch is run by one."""

    def __init__(
        self,
        store: BatchStore,
        settings: BatchSettings,
        metrics: Metrics,
        grants: Callable[[str], TenantSettings],
        *,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._grants = grants
        self._wall = wall
        self._app: ASGIApp | None = None
        self._around = Surroundings(
            files=store.files,
            ask=self._ask,
            metrics=metrics,
            slots=asyncio.Semaphore(settings.concurrent_lines),
            stopping=asyncio.Event(),
            max_lines=settings.max_lines,
            poll_seconds=settings.poll_seconds,
            wall=wall,
            sleep=sleep,
        )
        self._runs: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """Batch id to its tenant's folder and its run."""
        self._not_before: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._swept_seconds = float("-inf")

    def start(self, app: ASGIApp) -> None:
        """``app`` answers the lines: the gateway's own."""
        self.serve(app)
        self._watcher = asyncio.create_task(self._watch(), name="batches")

    def serve(self, app: ASGIApp) -> None:
        """Lines go to ``app``; nothing is begun until ``scan``."""
        self._app = app

    def wake(self) -> None:
        """There is a new batch: do not wait for the next look."""
        self._wake.set()

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Begin nothing new, give what runs so long, then leave the rest to whoever comes after."""
        self._around.stopping.set()
        if self._watcher is not None:
            self._watcher.cancel()
        tasks = [task for _, task in self._runs.values()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._watcher is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher

    async def idle(self) -> None:
        """Until no batch runs here."""
        while self._runs:
            await asyncio.wait([task for _, task in self._runs.values()])
            await asyncio.sleep(0)

    async def scan(self) -> None:
        """Begin what nobody runs, as far as there is room; tenants with the fewest runs here first."""
        found = await asyncio.to_thread(self._store.waiting)
        now = self._wall()
        open_ = [(folder, name) for folder, name in found if name not in self._runs]
        open_ = [(folder, name) for folder, name in open_ if self._not_before.get(name, now) <= now]
        while open_ and len(self._runs) < self._settings.concurrent_batches:
            running = Counter(folder for folder, _ in self._runs.values())
            folder, name = min(open_, key=lambda one: running[one[0]])
            open_.remove((folder, name))
            try:
                held = await asyncio.to_thread(self._store.claim, folder, name)
            except OSError as error:
                # its folder's fault or the disk's: the others are begun, and what has expired is swept, all the same
                self._metrics.add("wattgate_batch_faults_total", 1, "disk")
                self._not_before[name] = self._wall() + _AGAIN_SECONDS
                log.warning("batch %s: %s; it is tried again in %.0f s", name, error, _AGAIN_SECONDS)
                continue
            if held is not None:
                self._begin(folder, name, held)

    def _begin(self, folder: str, name: str, held: Hold) -> None:
        task = asyncio.create_task(self._run(name, held), name=name)
        self._runs[name] = (folder, task)
        self._metrics.set("wattgate_batches_running", len(self._runs))

    async def _run(self, name: str, held: Hold) -> None:
        try:
            batch = await asyncio.to_thread(held.read)
            try:
                await BatchRun(held, batch, self._workers(batch.tenant), self._around).run()
            except* Overtaken:
                self._metrics.add("wattgate_batch_faults_total", 1, "overtaken")
                log.warning("batch %s: its lock was lost, and another replica runs it now", name)
        except Exception:
            self._metrics.add("wattgate_batch_faults_total", 1, "run")
            self._not_before[name] = self._wall() + _AGAIN_SECONDS
            log.exception("batch %s: its run failed; it is tried again in %.0f s", name, _AGAIN_SECONDS)
        finally:
            held.release()
            del self._runs[name]
            self._metrics.set("wattgate_batches_running", len(self._runs))
            self._wake.set()

    def _workers(self, tenant: str) -> int:
        limit = self._grants(tenant).limits.concurrent_requests
        own = self._settings.concurrent_lines
        return own if limit is None else min(own, max(1, limit // 2))

    async def _ask(self, tenant: str, path: str, body: dict[str, Any]) -> InsideAnswer:
        assert self._app is not None
        return await ask(self._app, tenant, path, body, _HEADERS)

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.scan()
                if self._wall() - self._swept_seconds >= _SWEEP_SECONDS:
                    self._swept_seconds = self._wall()
                    await asyncio.to_thread(self._store.files.sweep)
                    await asyncio.to_thread(self._store.sweep)
            except OSError as error:
                self._metrics.add("wattgate_batch_faults_total", 1, "disk")
                log.warning("batches: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.poll_seconds):
                    await self._wake.wait()
