"""What has become of a batch's lines: appended as they end, read again after a restart."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from serving.batches.record import use_of_answer
from serving.limits.book import NOTHING, Use

OUTPUT, ERRORS, BEGUN = "output.jsonl", "errors.jsonl", "begun"


@dataclass(slots=True)
class Recovered:
    done: set[str] = field(default_factory=set)
    """Custom ids of lines that have ended; they are not run again."""
    completed: int = 0
    failed: int = 0
    use: Use = NOTHING
    begun: Counter[int] = field(default_factory=Counter)
    """Line number to how many lives of a replica ended while it ran."""


class Journal:
    """Every method blocks on the disk. A line counts once its result is written whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recover(self) -> Recovered:
        """What earlier lives did; the half-written end that a killed one may have left is cut off."""
        found = Recovered()
        for line in self._whole_lines(OUTPUT):
            found.done.add(line["custom_id"])
            found.completed += 1
            found.use += use_of_answer(line["response"]["body"])
        for line in self._whole_lines(ERRORS):
            found.done.add(line["custom_id"])
            found.failed += 1
        _cut_torn_end(self._folder / BEGUN)
        if (path := self._folder / BEGUN).exists():
            for mark in path.read_text().split():
                found.begun[abs(int(mark))] += 1 if int(mark) > 0 else -1
        return found

    def begin(self, number: int) -> None:
        """Before a line runs, once a life: a line that ends the process each time must not do so for ever."""
        self._append(BEGUN, b"%d\n" % number)

    def left(self, number: int) -> None:
        """The line did not end, and that was not its fault."""
        self._append(BEGUN, b"-%d\n" % number)

    def write(self, result: dict[str, Any], *, failed: bool) -> None:
        self._append(ERRORS if failed else OUTPUT, orjson.dumps(result) + b"\n")

    def path(self, name: str) -> Path | None:
        """Of ``OUTPUT`` or ``ERRORS``; None where nothing is in it."""
        path = self._folder / name
        return path if path.exists() and path.stat().st_size else None

    def _append(self, name: str, text: bytes) -> None:
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            written = 0
            try:
                while written < len(text):
                    written += os.write(descriptor, text[written:])
            except OSError:
                # a full disk took a part of it
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _whole_lines(self, name: str) -> Iterator[dict[str, Any]]:
        path = self._folder / name
        _cut_torn_end(path)
        if not path.exists():
            return
        with path.open("rb") as file:
            for raw in file:
                yield orjson.loads(raw)


def _cut_torn_end(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        whole = 0
        for raw in file:
            if not raw.endswith(b"\n"):
                file.truncate(whole)
                return
            whole += len(raw)
