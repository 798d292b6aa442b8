"""Whole gateways, started as a user starts them: the command, as a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

import httpx
import openai

READY = re.compile(r"ready on (http://[0-9.:]+)/v1")


class GatewayProcess:
    """``wattgate serve`` with its output and its data in a folder of its own."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None, module: str | None = None) -> None:
        """``module``: run in place of the command."""
        folder = Path(tempfile.mkdtemp(prefix="gateway-process-"))
        # what it wrote can be read for as long as this object lives
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.log = folder / "log"
        # the history of a test is nobody's history
        own = {"XDG_DATA_HOME": str(folder / "data")}
        program = ["-m", module] if module else ["-c", "from serving.cli import main; main()", "serve"]
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **own, **(environment or {})},
                start_new_session=True,
            )
        self.url = ""
        self._clients: dict[str, openai.OpenAI] = {}

    def wait_ready(self, timeout_seconds: float = 300.0) -> GatewayProcess:
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            found = READY.search(self.output())
            if found:
                self.url = found.group(1)
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        self.stop()
        raise AssertionError(f"the gateway did not become ready:\n{self.output()}")

    def client(self, key: str = "any") -> openai.OpenAI:
        """The stock SDK of who has this key, closed with the gateway: a client left to the collector leaves sockets."""
        if key not in self._clients:
            self._clients[key] = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)
        return self._clients[key]

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM, timeout_seconds: float = 90.0) -> int:
        while self._clients:
            self._clients.popitem()[1].close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def metric(self, name: str, *, headers: dict[str, str] | None = None, **labels: str) -> float:
        return summed(httpx.get(f"{self.url}/metrics", headers=headers, timeout=30).text, name, labels)


def summed(exposition: str, name: str, labels: Mapping[str, str]) -> float:
    """A series over the label values that are not named."""
    total = 0.0
    for line in exposition.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found:
            have = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found.group(1) or ""))
            if all(have.get(key) == value for key, value in labels.items()):
                total += float(found.group(2))
    return total


def until(condition, timeout_seconds: float = 30.0, what: str = "the condition"):  # type: ignore[no-untyped-def]
    """Poll another process's state; returns the first true value."""
    end = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about in {timeout_seconds:.0f} s")
        time.sleep(0.1)
