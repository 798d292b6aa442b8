"""Nothing is left behind: what a run started is found again and ended, by process id."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterable

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Let children whose parent dies become ours, so that they can still be found at the end."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """Every process below this one (or ``pid``), deepest last."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def reap_adopted(own: Collection[int]) -> list[int]:
    """Take the exit status of dead children that are not in ``own``: orphans that became ours (a killed replica's
    engine processes) have nobody else to do it, and would stay as zombies.
    """
    reaped = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.pid not in own and child.status() == psutil.STATUS_ZOMBIE:
                reaped.append(os.waitpid(child.pid, os.WNOHANG)[0])
    return reaped


def end_processes(processes: Iterable[psutil.Process], grace_seconds: float = 3.0) -> list[int]:
    """SIGTERM, then SIGKILL to what is left. Returns the ids that needed the second."""
    alive = [process for process in processes if process.is_running()]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    _, stubborn = psutil.wait_procs(alive, timeout=grace_seconds)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=grace_seconds)
    return [process.pid for process in stubborn]


def end_descendants(keep: Collection[int] = (), grace_seconds: float = 3.0) -> list[int]:
    """End all that is still below this process but ``keep``; twice, because the dying may have had children."""
    killed: list[int] = []
    for _ in range(2):
        killed += end_processes([p for p in descendants() if p.pid not in keep], grace_seconds)
    return killed
