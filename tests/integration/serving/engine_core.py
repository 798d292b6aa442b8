"""Which of a gateway's processes is the engine's core."""

from __future__ import annotations

import contextlib

import psutil


def is_core(process: psutil.Process) -> bool:
    # one that has ended meanwhile is none
    with contextlib.suppress(psutil.Error):
        return "EngineCor" in f"{process.name()} {process.cmdline()}"
    return False
