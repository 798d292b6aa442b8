"""Events: what changed and when, so that a step in a curve can be explained."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from serving.operations.json_lines import JsonLines

Kind = Literal["model", "config", "cap", "cache_epoch", "intensity_source", "drift"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EVENTS = "events.jsonl"
"""The log's name in the run's folder."""


@dataclass(frozen=True, slots=True)
class Event:
    kind: Kind
    text: str
    """One line for a person: what changed, from what, to what."""
    at_seconds: float
    """Unix time."""
    model: str | None = None
    """None where it concerns all of them."""


class EventLog:
    """An append-only file, shared by the node's processes. Writing blocks for one small write."""

    def __init__(
        self,
        path: Path,
        wall: Callable[[], float] = time.time,
        recorded: Callable[[Kind], None] = lambda kind: None,
    ) -> None:
        self._lines = JsonLines(path)
        self._wall = wall
        self._recorded = recorded

    def record(self, kind: Kind, text: str, model: str | None = None) -> Event:
        """Raises ``ValueError`` for a kind that is none of ``KINDS``."""
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of event; there are {', '.join(KINDS)}")
        event = Event(kind, " ".join(text.split()), self._wall(), model)
        self._lines.append(asdict(event))
        self._recorded(kind)
        return event

    def read(self, since_seconds: float = 0.0) -> list[Event]:
        """The latest events at or after ``since_seconds``, oldest first. A damaged line is passed over."""
        events = []
        for line in self._lines.tail():
            try:
                event = Event(**line)
            except TypeError:
                continue
            if event.at_seconds >= since_seconds:
                events.append(event)
        return sorted(events, key=lambda event: event.at_seconds)


def changes(kind: Kind, before: object, after: object, prefix: str = "") -> list[str]:
    """What differs between two settings, a line each: ``max_concurrency: 32 -> 16``.

    Both are mappings (as ``model_dump(mode="json")`` gives, in which secrets are masked), nested ones included.
    """
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [] if before == after else [f"{prefix or kind}: {before} -> {after}"]
    out = []
    for key in sorted({*before, *after}):
        out += changes(kind, before.get(key), after.get(key), f"{prefix}.{key}" if prefix else str(key))
    return out
