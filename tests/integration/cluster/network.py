"""Machines that are none: network namespaces on a bridge, so that nodes have addresses and cables of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess

import pytest

from serving.placement.run_folder import Started


def require_namespaces() -> None:
    """Skips where this user may not make network namespaces."""
    if shutil.which("ip") is None:
        pytest.skip("a second node needs network namespaces: `ip` is not installed (apt-get install iproute2)")
    name = f"wg{os.getpid() % 10_000}t"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"a second node needs network namespaces, which this user may not make: {made.stderr.strip()}")
    run("ip", "netns", "del", name)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Network(Started):
    """A bridge with this process at ``.254`` and machines at ``.1``, ``.2`` and so on."""

    def __init__(self, machines: int) -> None:
        number = os.getpid() % 10_000
        self._bridge = f"wg{number}"
        self._net = f"10.213.{number % 250}"
        self.here = f"{self._net}.254"
        self.names = [f"wg{number}n{index + 1}" for index in range(machines)]
        self.addresses = [f"{self._net}.{index + 1}" for index in range(machines)]

    def start(self) -> None:
        run("ip", "link", "add", self._bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.here}/24", "dev", self._bridge)
        run("ip", "link", "set", self._bridge, "up")
        for index, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            cable = self._cable(index)
            run("ip", "netns", "add", name)
            run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", cable, "master", self._bridge, "up")
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")

    def _cable(self, index: int) -> str:
        return f"{self._bridge}v{index + 1}"

    def within(self, index: int) -> tuple[str, ...]:
        """What goes before a command so that it runs on that machine."""
        return ("ip", "netns", "exec", self.names[index])

    def cut(self, index: int) -> None:
        """Pull the machine's cable: nothing is closed, nothing answers."""
        run("ip", "link", "set", self._cable(index), "down")

    def processes(self, index: int) -> list[int]:
        return [int(line) for line in run("ip", "netns", "pids", self.names[index]).split()]

    def kill(self, index: int) -> None:
        """End everything on that machine at once."""
        for pid in self.processes(index):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for index, name in enumerate(self.names):
            with contextlib.suppress(AssertionError):
                self.kill(index)
            with contextlib.suppress(AssertionError):
                run("ip", "netns", "del", name)
        with contextlib.suppress(AssertionError):
            run("ip", "link", "del", self._bridge)
