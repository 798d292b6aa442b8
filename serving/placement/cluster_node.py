"""`wattgate node`: this machine as a node of a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable

import psutil

from serving.config import GatewayConfig
from serving.placement import ray_runtime
from serving.placement.cluster import node_environment
from serving.placement.gpus import gpus_here
from serving.placement.janitor import RUN_VARIABLE
from serving.placement.processes import adopt_orphans, descendants, reap_adopted
from serving.placement.proxy_launcher import find_haproxy, write_launcher
from serving.placement.ray_runtime import HAPROXY_PROGRAM
from serving.placement.run_folder import RunFolder, Started
from serving.placement.supervisor import StartError

_START_SECONDS = 120.0


class ClusterNode(Started):
    """This machine as a node of a Ray cluster, while the context is open. ``join``: the head's address; None: the head.

    ``host``: this machine's address in the cluster's network.
    """

    def __init__(
        self,
        config: GatewayConfig,
        token: str,
        tell: Callable[[str], None],
        *,
        host: str,
        port: int = 6379,
        join: str | None = None,
        cores: int | None = None,
    ) -> None:
        self._config, self._token, self._tell = config, token, tell
        self._host, self._join, self._cores = host, join, cores
        self.address = join or f"{host}:{port}"
        self._folder: RunFolder | None = None

    def start(self) -> None:
        adopt_orphans()
        self._folder = RunFolder()
        folder = self._folder.path
        for name in ("haproxy", "metrics"):
            (folder / name).mkdir()
        variables = node_environment(self._config, folder, self._token)
        if (launcher := write_launcher(folder / "haproxy", find_haproxy())) is not None:
            variables[HAPROXY_PROGRAM] = str(launcher)
        arguments = ["--address", self.address] if self._join else ["--head", "--port", self.address.rpartition(":")[2]]
        if not self._join:
            arguments += ["--include-dashboard", "false"]
        if self._cores is not None:
            arguments += ["--num-cpus", str(self._cores)]
        if gpus := gpus_here():
            arguments += ["--num-gpus", str(gpus)]
        arguments += ["--node-ip-address", self._host, "--temp-dir", str(folder / "ray")]
        arguments += ["--object-store-memory", str(ray_runtime.OBJECT_STORE_BYTES), "--disable-usage-stats"]
        self._tell(f"joining the cluster at {self.address}" if self._join else f"starting the head on {self.address}")
        # not with --block: its processes are found below us, or by the mark that they carry
        done = subprocess.run(
            [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *arguments],
            env={**os.environ, **variables, RUN_VARIABLE: str(folder)},
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise StartError(f"this node could not start: {lines[-1] if lines else 'Ray gave no reason'}")

    def alive(self) -> bool:
        """Whether this node still belongs to the cluster; a raylet ends when the head has gone. Buries adopted dead."""
        if self._folder is not None:
            reap_adopted({self._folder.janitor_pid})
        for process in descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == "raylet" and process.status() != psutil.STATUS_ZOMBIE:
                    return True
        return False

    def close(self) -> None:
        """Idempotent; ends every process of the node and removes its files."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None
