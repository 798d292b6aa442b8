"""From the records of a window to the shares of its requests: pure, one set of devices at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from metering.accounts import Account
from metering.power.base import Load
from metering.weights import (
    ExecutedWork,
    WeightKind,
    WorkModel,
    common_kind,
    mean_batches,
    usable_kind,
    weight,
    weight_bytes,
)
from metering.windows import Span, Window, union_seconds
from metering.work import EngineSteps, WorkRecord

Engine = tuple[str, str]
"""(source, model): one engine of one replica."""


@dataclass(slots=True)
class LiveRecord:
    """A record with a part in a window that is not booked yet."""

    record: WorkRecord
    source: str
    account: Account
    model: WorkModel | None
    work: ExecutedWork | None
    span: Span


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a record that fell into the window."""

    live: LiveRecord
    fraction: float
    interval: tuple[float, float] | None

    @property
    def seconds(self) -> float:
        return self.interval[1] - self.interval[0] if self.interval else 0.0

    @property
    def engine(self) -> Engine:
        return (self.live.source, self.live.record.model)


@dataclass(slots=True)
class Shares:
    """The requests of a window on one set of devices, with parallel lists of what each did there."""

    kind: WeightKind
    busy_seconds: float = 0.0
    accounts: list[Account] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Seconds that sequences of the request were scheduled."""
    flops: list[float] = field(default_factory=list)
    load: Load = field(default_factory=lambda: Load(0.0, 0.0, 0.0, 0.0))

    @property
    def usable_weights(self) -> list[float]:
        """The weights, or the time where no work weighs anything."""
        return self.weights if any(value > 0 for value in self.weights) else self.seconds


@dataclass(frozen=True, slots=True)
class EngineWindow:
    """What one served model did over a window, over all replicas of it."""

    model: str
    flops: float
    tokens_prefill: float
    tokens_decode: float
    busy_seconds: float
    mean_batch: float
    engines: int
    """Replicas that worked; the peak of the ratios is that of one engine times this number."""
    engine_seconds: float
    """Time at work, of each engine by itself, in all; ``busy_seconds`` counts once what several did at a time."""
    mfu_ratio: float | None
    mbu_ratio: float | None


def cut(live: Iterable[LiveRecord], window: Window) -> tuple[list[Slice], list[LiveRecord], list[LiveRecord]]:
    """Cut a window's part off each record: the slices, the records that go on, and those now booked whole."""
    slices: list[Slice] = []
    going_on: list[LiveRecord] = []
    spent: list[LiveRecord] = []
    for record in live:
        taken = record.span.take(window)
        if taken is not None:
            slices.append(Slice(record, *taken))
        (spent if record.span.spent(window) else going_on).append(record)
    return slices, going_on, spent


def batches(slices: Iterable[Slice], steps: Mapping[Engine, list[EngineSteps]], window: Window) -> dict[Engine, float]:
    """Mean sequences per forward pass of each engine that worked in the window."""
    intervals: dict[Engine, list[tuple[float, float]]] = {}
    for piece in slices:
        known = intervals.setdefault(piece.engine, [])
        if piece.interval is not None:
            known.append(piece.interval)
    return mean_batches(intervals, steps, window.start_seconds, window.end_seconds)


def share(slices: list[Slice], batch: Mapping[Engine, float], wanted: WeightKind, window: Window) -> Shares:
    """Weigh the slices and gather them by request."""
    kind = common_kind((usable_kind(wanted, s.live.model, s.live.work) for s in slices), wanted)
    out = Shares(kind)
    index: dict[int, int] = {}
    for piece in slices:
        live = piece.live
        at = index.get(id(live.account))
        if at is None:
            at = index[id(live.account)] = len(out.accounts)
            out.accounts.append(live.account)
            out.sources.append(live.source)
            out.weights.append(0.0)
            out.seconds.append(0.0)
            out.flops.append(0.0)
        whole = weight(kind, live.record, live.work, live.model, batch[piece.engine])
        out.weights[at] += whole * piece.fraction
        out.seconds[at] += piece.seconds
        if live.work is not None:
            out.flops[at] += live.work.flops * piece.fraction
    busy = union_seconds(s.interval for s in slices if s.interval is not None)
    out.busy_seconds = min(busy, window.seconds)
    out.load = load(slices, batch, window, out.busy_seconds)
    return out


def load(slices: Iterable[Slice], batch: Mapping[Engine, float], window: Window, busy_seconds: float) -> Load:
    """FLOPs and bytes of the window over the peaks of the devices; None where a peak or a model is unknown.

    MBU counts the weights once per forward pass, and the keys and values read and written.
    """
    mfu: float | None = 0.0
    mbu: float | None = 0.0
    for piece in slices:
        model, work = piece.live.model, piece.live.work
        if model is None or work is None or not model.peak_flops:
            mfu = None
        elif mfu is not None:
            mfu += work.flops * piece.fraction / (model.peak_flops * window.seconds)
        if model is None or work is None or not model.bandwidth_bytes_per_second:
            mbu = None
        elif mbu is not None:
            weights = weight_bytes(piece.live.record, work, model, batch[piece.engine])
            share = (work.kv_bytes + weights) * piece.fraction if weights is not None else None
            mbu = None if share is None else mbu + share / (model.bandwidth_bytes_per_second * window.seconds)
    return Load(window.seconds, busy_seconds, mfu, mbu)


def _busy(pieces: Iterable[Slice], engine: Engine) -> float:
    return union_seconds(p.interval for p in pieces if p.engine == engine and p.interval is not None)


def engine_windows(slices: Iterable[Slice], batch: Mapping[Engine, float], window: Window) -> tuple[EngineWindow, ...]:
    """MFU, MBU and counts of each model over the window: sum of FLOPs / (peak x window x engines)."""
    by_model: dict[str, list[Slice]] = {}
    for piece in slices:
        by_model.setdefault(piece.live.record.model, []).append(piece)
    out = []
    for name, pieces in sorted(by_model.items()):
        engines = {piece.engine for piece in pieces}
        busy = union_seconds(p.interval for p in pieces if p.interval is not None)
        used = load(pieces, batch, window, busy)
        count = len(engines)
        out.append(
            EngineWindow(
                model=name,
                flops=sum(p.live.work.flops * p.fraction for p in pieces if p.live.work is not None),
                tokens_prefill=sum(p.live.record.prefill_tokens * p.fraction for p in pieces),
                tokens_decode=sum(p.live.record.decode_tokens * p.fraction for p in pieces),
                busy_seconds=busy,
                mean_batch=sum(batch[engine] for engine in engines) / count,
                engines=count,
                engine_seconds=sum(_busy(pieces, engine) for engine in engines),
                mfu_ratio=None if used.mfu_ratio is None else used.mfu_ratio / count,
                mbu_ratio=None if used.mbu_ratio is None else used.mbu_ratio / count,
            )
        )
    return tuple(out)
