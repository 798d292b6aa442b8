"""Cleans up after a gateway that was killed: run as a process of its own beside it.

It waits on a pipe that the kernel closes when the gateway ends, however it ends. Every process of a run
carries the run's folder in its environment, by which it is found even when its parents are gone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from serving.placement.processes import end_processes

RUN_VARIABLE = "WATTGATE_RUN_FOLDER"
_DONE = b"done"


def processes_of(run_folder: Path) -> list[psutil.Process]:
    """Processes that belong to a run, wherever they hang in the process tree; not this one."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _belongs(p, run_folder)]


def _belongs(process: psutil.Process, run_folder: Path) -> bool:
    try:
        if process.environ().get(RUN_VARIABLE) == str(run_folder):
            return True
        # a process that sets its title overwrites its environment: go by the files it holds open
        folder = Path(f"/proc/{process.pid}/fd")
        return any(os.readlink(entry).startswith(f"{run_folder}/") for entry in folder.iterdir())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
        return False


def sweep(run_folder: Path) -> None:
    """End what is left of a run and remove its folder; twice, because the dying may have had children."""
    for _ in range(2):
        end_processes(processes_of(run_folder), grace_seconds=2.0)
    shutil.rmtree(run_folder, ignore_errors=True)


class Janitor:
    """The gateway's end of the pipe."""

    def __init__(self, run_folder: Path) -> None:
        environment = {key: value for key, value in os.environ.items() if key != RUN_VARIABLE}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.placement.janitor", str(run_folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def dismiss(self) -> None:
        """All is clean; nothing is left to do."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_DONE)
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.wait(timeout=10)


def main() -> None:
    run_folder = Path(sys.argv[1])
    if sys.stdin.buffer.read() != _DONE:
        sweep(run_folder)


if __name__ == "__main__":
    main()
