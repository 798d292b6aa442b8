"""The controller's decision log: why the cap moved or stayed, from, to, what was seen and what is expected of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.operations.json_lines import JsonLines
from serving.tuning.controller import Decision

DECISIONS = "decisions.jsonl"
"""The log's name in the run's folder."""


class DecisionLog:
    """Shared by the node's replicas. Only what is new is written: a move, or another reason to stay."""

    def __init__(self, path: Path, wall: Callable[[], float] = time.time) -> None:
        self._lines = JsonLines(path)
        self._wall = wall

    def record(self, decision: Decision, *, model: str, source: str, mode: str) -> None:
        expected = {"itl_p95_seconds": decision.expected_itl_p95_seconds}
        seen = {
            "ttft_p95_seconds": decision.seen_ttft_p95_seconds,
            "itl_p95_seconds": decision.seen_itl_p95_seconds,
            "tokens_per_second": decision.seen_tokens_per_second,
        }
        self._lines.append(
            {
                "at_seconds": self._wall(),
                "model": model,
                "replica": source,
                "mode": mode,
                "why": str(decision.reason),
                "from": decision.previous_cap,
                "to": decision.cap,
                "applied": decision.applied,
                "promise": decision.slo,
                "seen": seen,
                "expected": expected,
            }
        )

    def record_hold(self, previous_cap: int, cap: int, why: str, *, model: str, source: str) -> None:
        """A cap that was moved over the controller's head, or given back."""
        self._lines.append(
            {
                "at_seconds": self._wall(),
                "model": model,
                "replica": source,
                "mode": "held",
                "why": why,
                "from": previous_cap,
                "to": cap,
                "applied": True,
                "promise": None,
                "seen": None,
                "expected": None,
            }
        )

    def read(self, since_seconds: float = 0.0) -> list[dict[str, Any]]:
        """The latest decisions at or after ``since_seconds`` (Unix time), oldest first."""
        found = [line for line in self._lines.tail() if line.get("at_seconds", 0.0) >= since_seconds]
        return sorted(found, key=lambda line: float(line["at_seconds"]))
