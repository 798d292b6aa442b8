"""Windows of the node's monotonic clock, and how intervals of work fall into them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """The span between two consecutive readings of the power meters, in seconds of the monotonic clock.

    Its bounds are the moments of the readings, so a window's energy is a difference of counters and never
    an interpolation; a late reading makes a longer window.
    """

    start_seconds: float
    end_seconds: float

    @property
    def seconds(self) -> float:
        return self.end_seconds - self.start_seconds

    @property
    def nanoseconds(self) -> int:
        return round(self.seconds * NANO)

    def clip(self, started_seconds: float, ended_seconds: float) -> tuple[float, float] | None:
        """The part of an interval inside the window; None where they share no more than a point."""
        start = max(started_seconds, self.start_seconds)
        end = min(ended_seconds, self.end_seconds)
        return (start, end) if end > start else None


@dataclass(slots=True)
class Span:
    """The part of an interval of work that no closed window has taken yet.

    A span that begins before the first open window (work reported late) begins with that window instead,
    so that its whole weight still falls somewhere; an empty span weighs in at its one instant.
    """

    start_seconds: float
    end_seconds: float
    length_seconds: float = 0.0
    """Length when the span was taken in; fractions are of this, so that they add up to one."""

    @classmethod
    def of(cls, started_seconds: float, ended_seconds: float, first_open_seconds: float) -> Span:
        start = max(started_seconds, first_open_seconds)
        end = max(start, ended_seconds)
        return cls(start, end, end - start)

    def take(self, window: Window) -> tuple[float, tuple[float, float] | None] | None:
        """Cut off what lies in the window: its fraction of the whole span and the interval itself.

        None where the window has no part of it; the interval is None for an empty span.
        """
        if self.start_seconds > window.end_seconds:
            return None
        if self.length_seconds == 0.0:
            return (1.0, None)
        inside = window.clip(self.start_seconds, self.end_seconds)
        if inside is None:
            return None
        self.start_seconds = inside[1]
        return ((inside[1] - inside[0]) / self.length_seconds, inside)

    def spent(self, window: Window) -> bool:
        """Whether the window and those before it hold all of it."""
        return self.end_seconds <= window.end_seconds


def union_seconds(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals.

    >>> union_seconds([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)])
    4.0
    """
    total = 0.0
    reach: float | None = None
    for start, end in sorted(intervals):
        if reach is None or start > reach:
            total += end - start
            reach = end
        elif end > reach:
            total += end - reach
            reach = end
    return total
