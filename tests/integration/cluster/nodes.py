"""A cluster of two nodes, each a process of `wattgate node` on its own machine, and a gateway on it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from cache.embedded import EmbeddedRedis
from serving.placement.janitor import RUN_VARIABLE, sweep
from serving.placement.run_folder import Started
from tests.integration.cluster.network import Network
from tests.integration.serving.gateway_process import summed, until

KEY = "key-of-alice"
HEADERS = {"authorization": f"Bearer {KEY}"}
COMMAND = (sys.executable, "-c", "from serving.cli import main; main()")


class Process:
    """A `wattgate` command on one of the machines, its output in a file."""

    def __init__(self, network: Network, machine: int, folder: Path, name: str, *arguments: str, **extra: str) -> None:
        self.log = folder / f"{name}.log"
        # a machine has its own disk: its history, and what is calibrated
        own = {"XDG_DATA_HOME": str(folder / f"data-{machine}")}
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [*network.within(machine), *COMMAND, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **own, **extra},
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, timeout_seconds: float = 120.0) -> None:
        until(lambda: text in self.output() or self.process.poll() is not None, timeout_seconds, f"{text!r}")
        assert text in self.output(), self.output()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def run_folders(pid: int) -> set[Path]:
    """Of the nodes at or below a process, as its Ray processes carry them."""
    found = set()
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.add(process.environ().get(RUN_VARIABLE))
    return {Path(folder) for folder in found if folder}


class Cluster(Started):
    """``sections`` of the configuration over the defaults: one replica a node, a simulated engine."""

    def __init__(self, folder: Path, sections: dict[str, dict[str, Any]] | None = None) -> None:
        self.folder = folder
        self.network = Network(2)
        self.file = folder / "gateway.yaml"
        self.sections: dict[str, dict[str, Any]] = {
            "server": {"host": "0.0.0.0", "port": 8000, "replicas": 2, "replicas_per_node": 1},
            "engine": {"kind": "simulated"},
        }
        self.configure(sections or {})
        self.processes: list[Process] = []
        self._folders: set[Path] = set()

    def configure(self, sections: dict[str, dict[str, Any]]) -> None:
        for name, values in sections.items():
            self.sections[name] = self.sections.get(name, {}) | values
        self.file.write_text(yaml.safe_dump(self.sections))

    def start(self) -> None:
        self.network.start()
        reach = ("--bind", "127.0.0.1", self.network.here, "--protected-mode", "no")
        self.redis = EmbeddedRedis(tcp=True, arguments=reach).start()
        secrets = {
            "WATTGATE_CLUSTER_TOKEN": "a-secret-of-this-test-run",
            "WATTGATE_API_KEYS": f"alice={KEY}",
            "WATTGATE_CACHE_SECRET": "shared-by-both-nodes",
            "WATTGATE_REDIS_URL": self.redis.url.replace("127.0.0.1", self.network.here),
        }
        head = f"{self.network.addresses[0]}:6379"
        for machine, address in enumerate(self.network.addresses):
            role = ("--join", head) if machine else ("--head",)
            arguments = ("node", *role, "--ip", address, "--cores", "1", "--config", str(self.file))
            node = Process(self.network, machine, self.folder, f"node-{machine}", *arguments, **secrets)
            self.processes.append(node)
            node.wait_for(f"node {address} is up")
            self._folders |= run_folders(node.process.pid)
        arguments = ("serve", "--address", head, "--config", str(self.file))
        self.gateway = Process(self.network, 0, self.folder, "serve", *arguments, **secrets)
        self.processes.append(self.gateway)
        self.gateway.wait_for("ready on")
        self.url = f"http://{self.network.addresses[0]}:8000"
        until(lambda: self.answers(), what="an answer")

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v1/models", headers=HEADERS, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def targets(self) -> list[str]:
        groups = httpx.get(f"{self.url}/metrics/targets", headers=HEADERS, timeout=30).json()
        return [target for group in groups for target in group["targets"]]

    def metric(self, name: str, target: str, **labels: str) -> float:
        """Of one node: the sum of a series over the label values that are not named."""
        return summed(httpx.get(f"http://{target}/metrics", headers=HEADERS, timeout=30).text, name, labels)

    def close(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        if hasattr(self, "redis"):
            self.redis.close()
        self.network.close()
        # a machine that was killed could not tidy up
        for folder in self._folders:
            sweep(folder)
