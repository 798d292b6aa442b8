"""A circuit breaker: after a few failures in a row nobody waits for the store, until a probe finds it well."""

from __future__ import annotations

from collections.abc import Callable


class CircuitBreaker:
    """Closed, open, or half open. While open, one caller at a time is told to probe; the others go without."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        failures: int = 3,
        open_seconds: float = 0.5,
        longest_open_seconds: float = 5.0,
        changed: Callable[[bool], None] = lambda is_open: None,
    ) -> None:
        self._monotonic = monotonic
        self._failures_to_open = failures
        self._first_open_seconds = open_seconds
        self._longest_open_seconds = longest_open_seconds
        self._changed = changed
        self._failures = 0
        self._open_seconds = open_seconds
        self._probe_due_seconds: float | None = None

    @property
    def open(self) -> bool:
        return self._probe_due_seconds is not None

    def probe_due(self) -> bool:
        """True once per interval while open; the caller then probes and reports ``succeeded`` or ``failed``."""
        if self._probe_due_seconds is None or self._monotonic() < self._probe_due_seconds:
            return False
        self._probe_due_seconds = self._monotonic() + self._open_seconds
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._open_seconds = self._first_open_seconds
        if self.open:
            self._probe_due_seconds = None
            self._changed(False)

    def failed(self, *, probe: bool = False) -> None:
        """``probe``: it was the probe that failed; the next one comes after twice the time, up to a limit."""
        self._failures += 1
        if self.open:
            if probe:
                self._open_seconds = min(2 * self._open_seconds, self._longest_open_seconds)
                self._probe_due_seconds = self._monotonic() + self._open_seconds
        elif self._failures >= self._failures_to_open:
            self._probe_due_seconds = self._monotonic() + self._open_seconds
            self._changed(True)
