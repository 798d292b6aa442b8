"""Reading the meters at the ends of windows: differences of counters, gaps and resets made visible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metering.power.base import Component, ComponentReading, PowerMeter, PowerUnavailable, Reading
from metering.settlement import IntensityStamp
from metering.windows import Window


@dataclass(frozen=True, slots=True)
class Sample:
    """One component's energy over one window."""

    nanojoules: int | None
    idle_watts: float | None = None
    gap: str = ""
    recovered_nanojoules: int = 0
    """Metered since the last good reading, across a gap: known in sum, not by window."""
    reset: bool = False


@dataclass(frozen=True, slots=True)
class SealedWindow:
    """A window whose energy is known and whose work may still be on its way."""

    window: Window
    samples: Mapping[str, Sample]
    stamp: IntensityStamp | None
    epoch_seconds: float
    unused: frozenset[str] = frozenset()
    """Components that are not booked in it."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What all meters said at one moment, by component; a failed meter's components carry its reason."""

    at_seconds: float
    components: Mapping[str, ComponentReading]
    missing: Mapping[str, str]
    failures: int = 0


def read_all(meters: Iterable[PowerMeter], now_seconds: float) -> Readings:
    """Read every meter; one that fails takes only its own components with it."""
    components: dict[str, ComponentReading] = {}
    missing: dict[str, str] = {}
    failures = 0
    for meter in meters:
        try:
            reading: Reading = meter.read(now_seconds)
        except PowerUnavailable as error:
            failures += 1
            missing.update({component.name: str(error) for component in meter.components})
            continue
        failures += bool(reading.missing)
        components.update(reading.components)
        missing.update(reading.missing)
    return Readings(now_seconds, components, missing, failures)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a meter after this one goes on from, so that the energy between the two is not lost."""

    at_seconds: float
    """Monotonic: up to here everything is booked."""
    memories: Mapping[str, Any]
    """By meter."""
    booked: Mapping[str, ComponentReading]
    """Each component's counter up to where it is booked."""
    devices: Mapping[str, frozenset[str]]
    """Of each source that was announced with some."""


@dataclass(slots=True)
class Counter:
    """Follows one component's cumulative counter from window to window."""

    component: Component
    last: ComponentReading | None = None
    _in_gap: bool = False

    def start(self, reading: ComponentReading | None) -> None:
        """Baseline before the first window."""
        self.last = reading
        self._in_gap = reading is None

    def advance(self, reading: ComponentReading | None, reason: str) -> Sample:
        """The window's energy by difference.

        No reading, a new epoch or a counter that fell make a gap and no joules. The first good reading after
        a gap within one epoch tells what was drawn across it in sum: recovered, for no window in particular.
        """
        if reading is None:
            self._in_gap = True
            return Sample(None, gap=reason or "no reading")
        last, in_gap = self.last, self._in_gap
        self.last, self._in_gap = reading, False
        if last is None:
            return Sample(None, reading.idle_watts, gap="no earlier reading to compare with")
        if reading.epoch != last.epoch or reading.nanojoules < last.nanojoules:
            return Sample(None, reading.idle_watts, gap="the counter started anew", reset=True)
        drawn = reading.nanojoules - last.nanojoules
        if in_gap:
            return Sample(None, reading.idle_watts, gap="first reading after a gap", recovered_nanojoules=drawn)
        return Sample(drawn, reading.idle_watts)
