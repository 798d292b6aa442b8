"""The gateway under test, its processes by what they do, and what must be true of it in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from serving.placement.janitor import RUN_VARIABLE, processes_of
from tests.integration.serving.gateway_process import GatewayProcess, until

_MARKS = {
    "engine core": ("EngineCore",),
    "gateway replica": ("ServeReplica:wattgate:gateway",),
    "model replica": ("ServeReplica:wattgate-",),
    "redis": ("redis-server",),
    "proxy": ("haproxy",),
    "node meter": ("NodeMeterActor",),
}
SETTLE_SECONDS = 60.0
REPLACED_SECONDS = 180.0
"""A killed engine loads its model again."""


class House:
    """A gateway started from a configuration, in a process group of its own."""

    def __init__(self, config: str, folder: Path) -> None:
        file = folder / "gateway.yaml"
        file.write_text(config)
        self.gateway = GatewayProcess("--config", str(file)).wait_ready()
        self.url = self.gateway.url
        self.run_folder = self._run_folder()

    def _run_folder(self) -> Path:
        for process in psutil.Process(self.gateway.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if found := process.environ().get(RUN_VARIABLE):
                    return Path(found)
        raise AssertionError("the run's folder was not found")

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """What each process of the run does, where it is one of those that are killed or watched."""
        for process in psutil.Process(self.gateway.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                text = " ".join([process.name(), *process.cmdline()])
                if "haproxy" in text and process.name() != "haproxy":
                    continue
                for what, marks in _MARKS.items():
                    if any(mark in text for mark in marks):
                        yield what, process
                        break

    def of(self, what: str) -> list[psutil.Process]:
        return [process for found, process in self.processes() if found == what]

    def census(self) -> dict[str, int]:
        """How many there are of each; of proxies, old ones may still finish what they have."""
        counts = Counter(what for what, _ in self.processes())
        return {what: min(count, 1) if what == "proxy" else count for what, count in sorted(counts.items())}

    def complete_again(self, wanted: dict[str, int]) -> list[str]:
        """After the load: as many processes as before, no orphan of a dead one. What is not so, in words."""
        end = time.monotonic() + REPLACED_SECONDS
        while (found := self.census()) != wanted:
            if time.monotonic() > end:
                return [f"processes are {found}, were {wanted}"]
            time.sleep(0.5)
        return []

    def kill(self, what: str) -> int:
        """The oldest one, at once. Returns its id; 0 where there is none now."""
        found = sorted(self.of(what), key=lambda process: process.create_time())
        if not found:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[0].pid, signal.SIGKILL)
        return found[0].pid

    def figures(self) -> dict[str, float]:
        """Sums of the gauges and differences that must come back to nothing."""
        return {
            name: self.gateway.metric(name)
            for name in ("wattgate_running_requests", "wattgate_waiting_requests", "wattgate_books_difference_joules")
        }

    def settled(self) -> list[str]:
        """After the load: gauges at zero and books that balance. What is not so, in words."""
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                wrong = [f"{name} stays at {value}" for name, value in self.figures().items() if value != 0]
            except httpx.HTTPError as error:
                wrong = [f"the metrics cannot be read: {error}"]
            if not wrong or time.monotonic() > end:
                return wrong
            time.sleep(0.5)

    def books(self) -> dict[str, float]:
        """Joules: metered, booked to requests, idle that is not shared out yet."""
        metric = self.gateway.metric
        return {
            "metered": metric("wattgate_energy_joules_total"),
            "to requests": metric("wattgate_request_joules_total"),
            "difference": metric("wattgate_books_difference_joules"),
        }

    def answers_again(self, ask: str, timeout_seconds: float) -> float:
        """Seconds until a request is answered."""
        started = time.monotonic()
        body = {"model": ask, "messages": [{"role": "user", "content": "again"}], "max_tokens": 2}

        def answered() -> bool:
            try:
                return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=10).status_code == 200
            except httpx.HTTPError:
                return False

        until(answered, timeout_seconds=timeout_seconds, what="an answer")
        return time.monotonic() - started

    def close(self) -> list[str]:
        """Stop it. What is left behind, in words."""
        status = self.gateway.stop()
        left = processes_of(self.run_folder)
        wrong = [f"left behind: {process.pid} {process.name()}" for process in left]
        if self.run_folder.exists():
            wrong.append("the run's folder is left behind")
        return wrong if status == 0 else [*wrong, f"exit status {status}"]
