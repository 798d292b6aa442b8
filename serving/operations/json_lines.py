"""An append-only file of JSON lines, shared by a node's processes; readers look at its end."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

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
            finally:
                os.close(file)

    def tail(self) -> list[dict[str, Any]]:
        """The latest lines, oldest first. A damaged one is passed over."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found
