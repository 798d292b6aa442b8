"""The history's writer: rows gather in memory and go to the file every few seconds, off the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import platformdirs

from metering.history import History, HistoryStore, HistoryUnavailable

FLUSH_SECONDS = 5.0
"""What a killed node loses at most of its history; receipts and counters are not affected."""
FORGET_SECONDS = 3600.0
MOST_ROWS = 20_000
"""Rows kept in memory while the file cannot be written; what comes after that is dropped and counted."""


def history_file() -> Path:
    """Where the history is unless configured otherwise."""
    return Path(platformdirs.user_data_dir("wattgate")) / "history.sqlite3"


class HistoryKeeper:
    """Lives on one event loop. A file that cannot be written costs nothing but the history.

    Args:
        on_fault: ``history_kept_back`` for a write that will be tried again, ``history_dropped`` for rows lost.
    """

    def __init__(
        self,
        store: HistoryStore,
        on_fault: Callable[[str], None],
        *,
        keep_seconds: float,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._on_fault = on_fault
        self._keep_seconds = keep_seconds
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._pending = History()
        self._forgot_at = float("-inf")

    def add(self, rows: History) -> None:
        """Take rows for the next write."""
        if len(self._pending.usage) + len(self._pending.served) + len(self._pending.node) >= MOST_ROWS:
            self._on_fault("history_dropped")
            return
        self._pending.merge(rows)

    async def run(self) -> None:
        while True:
            await self._sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what has gathered, and now and then delete what is too old."""
        rows, self._pending = self._pending, History()
        if not rows:
            return
        try:
            await asyncio.to_thread(self._store.add, rows)
        except HistoryUnavailable:
            self._on_fault("history_kept_back")
            rows.merge(self._pending)
            self._pending = rows
            return
        now = self._wall_clock()
        if now - self._forgot_at < FORGET_SECONDS:
            return
        self._forgot_at = now
        try:
            await asyncio.to_thread(self._store.forget, now - self._keep_seconds)
        except HistoryUnavailable:
            self._on_fault("history_not_pruned")
