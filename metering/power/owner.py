"""One owner for each device: several node meters on a machine must not book the same joules."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable
from pathlib import Path

from metering.power.base import PowerUnavailable


class DeviceLocks:
    """File locks by device in a folder of the machine; the system drops them when their process ends.

    Args:
        folder: the same for all node meters of the machine, as a folder under ``/run`` or the temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def acquire(self, devices: Iterable[str]) -> None:
        """Become the owner of all devices, or of none.

        Raises:
            PowerUnavailable: another meter owns one of them, or the folder cannot be used.
        """
        taken: list[str] = []
        try:
            for device in devices:
                self._acquire(device)
                taken.append(device)
        except PowerUnavailable:
            self.release(taken)
            raise

    def release(self, devices: Iterable[str]) -> None:
        """Give devices back; unknown ones are ignored. The files stay: removing them would let two owners in."""
        for device in devices:
            descriptor = self._held.pop(device, None)
            if descriptor is not None:
                os.close(descriptor)

    def _acquire(self, device: str) -> None:
        path = self._folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', device)}.lock"
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PowerUnavailable(f"cannot lock {device} with {path}: {error.strerror}; give another folder") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise PowerUnavailable(
                f"{device} is metered by process {owner} already: one node meter owns a device, "
                "send the work records to that one"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._held[device] = descriptor
