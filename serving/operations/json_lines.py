"""An append-only file of JSON lines, shared by a node's processes; readers look at its end."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

_MOST_BYTES = 4 * 1024 * 1024
"""Then the file is put aside, and the one before it forgotten: a node runs for months."""
_TAIL_BYTES = 256 * 1024
"""What a reader looks at: some two thousand lines."""


class JsonLines:
    """Writing blocks for one small write; a disk that is full loses lines, and stops nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, value: dict[str, Any]) -> None:
        # one write of one line to a file opened for appending: lines of several processes do not mix
        with contextlib.suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, json.dumps(value).encode() + b"\n")
                written = os.fstat(file)
            finally:
                os.close(file)
            # behind the link, where the run's name is one; another process may have put it aside already
            target = os.path.realpath(self._path)
            if written.st_size > _MOST_BYTES and os.stat(target).st_ino == written.st_ino:
                os.replace(target, self._old)

    @property
    def _old(self) -> Path:
        return Path(f"{os.path.realpath(self._path)}.old")

    def tail(self) -> list[dict[str, Any]]:
        """The latest lines, oldest first. A damaged one is passed over."""
        lines = _end(self._path, _TAIL_BYTES)
        missing = _TAIL_BYTES - sum(map(len, lines))
        if missing > 0:
            lines = _end(self._old, missing) + lines
        found = []
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found


def _end(path: Path, size: int) -> list[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().splitlines()
    except FileNotFoundError:
        return []
