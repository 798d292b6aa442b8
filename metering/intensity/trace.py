"""A recorded series from a CSV file, and a series scripted by a test or a simulation."""

from __future__ import annotations

import bisect
import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from metering.errors import BadInput
from metering.intensity.reading import IntensityReading, IntensityUnavailable, Quality, Signal

Holes = Literal["refuse", "mark"]


@dataclass(frozen=True, slots=True)
class TraceRow:
    """``grams_per_kwh`` from ``at`` until one step later."""

    at: datetime
    grams_per_kwh: float
    carbon_free_ratio: float | None = None


class CsvTrace:
    """A CSV with the columns ``time`` (ISO 8601, UTC unless it says otherwise), ``grams_per_kwh`` and, if known,
    ``carbon_free_ratio``; rows in order of time, one every step. The step is the commonest distance of two rows.

    A hole (a missing row or an empty figure) is refused when the file is read; with ``holes="mark"`` it is kept, and a
    moment inside it has no figure, so that a fallback answers under its own label.

    Raises:
        BadInput: no such file, a missing column, a bad figure or time (with its line), times out of order, a hole.
    """

    def __init__(
        self,
        path: str | Path,
        zone: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        signal: Signal = "average",
        holes: Holes = "refuse",
        repeat: bool = False,
    ) -> None:
        self.zone = zone
        self.signal: Signal = signal
        self.source = f"trace {Path(path).name}"
        self._now = now
        self._repeat = repeat
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is not UTF-8 text") from error
        self._rows, empty = _read(text, Path(path).name)
        self._times = [row.at for row in self._rows]
        self.step = _step(self._times)
        if holes == "refuse":
            _refuse_holes(self._times, self.step, empty, Path(path).name)

    async def latest(self) -> IntensityReading:
        return self.at(self._now())

    async def forecast(self) -> tuple[IntensityReading, ...]:
        """The rows ahead; a trace knows its future."""
        start = bisect.bisect_right(self._times, self._moment(self._now()))
        return tuple(self._reading(row, Quality.FORECAST) for row in self._rows[start:])

    def at(self, when: datetime) -> IntensityReading:
        """The figure for a moment.

        Raises:
            IntensityUnavailable: before the first row, after the last, or in a hole.
        """
        moment = self._moment(when)
        index = bisect.bisect_right(self._times, moment) - 1
        if index < 0 or moment >= self._times[index] + self.step:
            raise IntensityUnavailable(f"{self.source} has no row for {moment.isoformat()}")
        return self._reading(self._rows[index], Quality.SCRIPTED)

    def _moment(self, when: datetime) -> datetime:
        if not self._repeat:
            return when
        length = self._times[-1] + self.step - self._times[0]
        return self._times[0] + (when - self._times[0]) % length

    def _reading(self, row: TraceRow, quality: Quality) -> IntensityReading:
        return IntensityReading(
            row.grams_per_kwh, self.zone, self.source, quality, self.signal, row.at, row.carbon_free_ratio
        )


class ScriptedIntensity:
    """Figures set by hand; None makes the source fail."""

    source = "scripted"

    def __init__(
        self, grams_per_kwh: float | None, zone: str = "scripted", *, signal: Signal = "average",
        forecast: Sequence[IntensityReading] = (),
    ) -> None:  # fmt: skip
        self.grams_per_kwh = grams_per_kwh
        self.zone = zone
        self.signal: Signal = signal
        self.ahead = tuple(forecast)
        self.calls = 0

    async def latest(self) -> IntensityReading:
        self.calls += 1
        if self.grams_per_kwh is None:
            raise IntensityUnavailable("scripted to fail")
        return IntensityReading(self.grams_per_kwh, self.zone, self.source, Quality.SCRIPTED, self.signal)

    async def forecast(self) -> tuple[IntensityReading, ...]:
        return self.ahead


def _read(text: str, name: str) -> tuple[list[TraceRow], list[int]]:
    """Rows, and the lines whose figure is empty."""
    reader = csv.DictReader(io.StringIO(text))
    for column in ("time", "grams_per_kwh"):
        if column not in (reader.fieldnames or ()):
            raise BadInput(f"{name} has no column {column!r}: the header must name time and grams_per_kwh")
    found: list[TraceRow] = []
    empty: list[int] = []
    for line, row in enumerate(reader, 2):
        if not (row["grams_per_kwh"] or "").strip():
            empty.append(line)
            continue
        parsed = _row(row, f"{name} line {line}")
        if found and parsed.at <= found[-1].at:
            raise BadInput(f"{name} line {line}: {parsed.at.isoformat()} does not follow {found[-1].at.isoformat()}")
        found.append(parsed)
    if len(found) < 2:
        raise BadInput(f"{name} has {len(found)} rows with a figure: a trace needs at least two")
    return found, empty


def _row(row: dict[str, str | None], where: str) -> TraceRow:
    try:
        at = datetime.fromisoformat((row["time"] or "").strip())
    except ValueError as error:
        raise BadInput(f"{where}: {row['time']!r} is not an ISO 8601 time") from error
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    grams = _figure(row["grams_per_kwh"], where, "grams_per_kwh")
    share = (row.get("carbon_free_ratio") or "").strip()
    ratio = _figure(share, where, "carbon_free_ratio") if share else None
    if ratio is not None and ratio > 1:
        raise BadInput(f"{where}: carbon_free_ratio must be 0..1, got {ratio}")
    return TraceRow(at, grams, ratio)


def _figure(text: str | None, where: str, name: str) -> float:
    try:
        value = float(text or "")
    except ValueError as error:
        raise BadInput(f"{where}: {name} {text!r} is not a number") from error
    if not 0 <= value < float("inf"):
        raise BadInput(f"{where}: {name} must be at least 0, got {value}")
    return value


def _step(times: Sequence[datetime]) -> timedelta:
    distances = Counter(after - before for before, after in itertools.pairwise(times))
    commonest = max(distances.values())
    return min(distance for distance, count in distances.items() if count == commonest)


def _refuse_holes(times: Sequence[datetime], step: timedelta, empty: Sequence[int], name: str) -> None:
    if empty:
        raise BadInput(f"{name} line {empty[0]}: no figure; fill it, or read the trace with holes marked")
    for before, after in itertools.pairwise(times):
        if after - before > step:
            raise BadInput(
                f"{name} has a hole: nothing between {before.isoformat()} and {after.isoformat()} though rows come "
                f"every {step}; fill it, or read the trace with holes marked"
            )
