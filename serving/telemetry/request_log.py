"""One JSON line a request. A thread writes them: a full or slow disk delays no request, it loses lines, counted."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from serving.telemetry.ended import Ended

_MAX_WAITING = 10_000


class RequestLog:
    """``EndedSink``. ``close`` writes what waits."""

    def __init__(
        self,
        path: Path | None,
        on_lost: Callable[[], None] = lambda: None,
        *,
        told: Callable[[Ended], dict[str, Any] | None] | None = None,
        most_bytes: int | None = None,
    ) -> None:
        """``path`` None: standard error. ``told``: a request's line, None for none; by default :func:`line`. A file
        of ``most_bytes`` gets the ending ``.1``, in place of the one before it.
        """
        self._told = told or line
        self._most_bytes = most_bytes
        self._path = path
        self._on_lost = on_lost
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._write, name="request-log", daemon=True)
        self._thread.start()

    def ended(self, request: Ended) -> None:
        fields = self._told(request)
        if fields is None:
            return
        try:
            self._waiting.put_nowait(orjson.dumps(fields) + b"\n")
        except queue.Full:
            self._on_lost()

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join(timeout=5.0)

    def _write(self) -> None:
        while (text := self._waiting.get()) is not None:
            parts = [text]
            last = False
            while not self._waiting.empty():
                more = self._waiting.get()
                if more is None:
                    last = True
                    break
                parts.append(more)
            try:
                self._append(b"".join(parts))
            except OSError:
                for _ in parts:
                    self._on_lost()
            if last:
                return

    def _append(self, text: bytes) -> None:
        if self._path is None:
            sys.stderr.write(text.decode())
            sys.stderr.flush()
            return
        # opened each time: log rotation needs no signal, and whole lines of several replicas do not mix
        with self._path.open("ab", buffering=0) as file:
            file.write(text)
            full = self._most_bytes is not None and file.tell() >= self._most_bytes
        if full:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))


def line(request: Ended) -> dict[str, Any]:
    """Milliseconds and grams as people read them; what is unknown is left out."""
    use = request.use
    fields: dict[str, Any] = {
        "time": datetime.fromtimestamp(request.started_wall_seconds, UTC).isoformat(timespec="milliseconds"),
        "request_id": request.request_id,
        "client_request_id": request.client_request_id,
        "tenant": request.tenant,
        "model": request.model,
        "method": request.method,
        "path": request.path,
        "status": request.status,
        "error": request.error,
        "total_ms": round(request.seconds * 1000, 2),
    }
    if request.cache is not None:
        fields |= {
            "stream": request.stream,
            "priority": request.priority,
            "cache": request.cache,
            "queue_ms": round(request.queue_seconds * 1000, 2),
            "overhead_ms": round(request.overhead_seconds * 1000, 2),
            "ttft_ms": None if request.first_token_seconds is None else round(request.first_token_seconds * 1000, 2),
            "prompt_tokens": use.prompt_tokens,
            "cached_prompt_tokens": use.cached_prompt_tokens,
            "output_tokens": use.output_tokens,
            "joules": request.joules,
            "grams": request.grams,
            "cost": request.cost,
            "work": request.work,
            "prompt": request.prompt,
        }
    return {name: value for name, value in fields.items() if value is not None}
