"""The latest events as series, so that a dashboard's annotations say what changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from serving.operations.events import EventLog

NAME = "wattgate_event_timestamp_seconds"
_SHOWN_SECONDS = 3600.0
"""A Prometheus that was away for less has missed no event."""
_MOST = 20
"""Series at a time, for each event makes one: a controller may move a cap every few seconds."""
_MOST_CHARACTERS = 200


class EventSeries:
    """A ``prometheus_client`` collector. What happened twice is one series, at the time of the last."""

    def __init__(self, events: EventLog, wall: Callable[[], float] = time.time) -> None:
        self._events = events
        self._wall = wall

    def collect(self) -> Iterator[Metric]:
        at = {
            (event.kind, event.model or "", _short(event.text)): event.at_seconds
            for event in self._events.read(self._wall() - _SHOWN_SECONDS)[-_MOST:]
        }
        family = GaugeMetricFamily(NAME, "When what changed, Unix time.", labels=("kind", "model", "text"))
        for labels, seconds in at.items():
            family.add_metric(labels, seconds)
        yield family


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
