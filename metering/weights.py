"""How much of a window's busy energy each request gets: the weights of executed work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from metering.windows import union_seconds
from metering.work import EngineSteps, WorkRecord


class WeightKind(StrEnum):
    """What a weight counts.

    ``roofline_time`` (default) is the time that the work takes on the device by the roofline model,
    max(FLOPs / peak, bytes / bandwidth) for the prefill and for the decode, the weight read of a step shared
    by the sequences in it: FLOPs alone would undercharge decode, which waits for memory.
    """

    ROOFLINE_TIME = "roofline_time"
    FLOPS = "flops"
    TOKENS = "tokens"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class ExecutedWork:
    """FLOPs and bytes of one record."""

    flops_prefill: int
    flops_decode: int
    kv_bytes_prefill: float
    """Keys and values read and written."""
    kv_bytes_decode: float
    weight_bytes_prefill: float = 0.0
    """Weights read by the one forward pass of the prefill, whoever shares it."""

    @property
    def flops(self) -> int:
        return self.flops_prefill + self.flops_decode

    @property
    def kv_bytes(self) -> float:
        return self.kv_bytes_prefill + self.kv_bytes_decode


class WorkModel(Protocol):
    """What the meter has to know of a served model on its device."""

    @property
    def name(self) -> str:
        """Served model name, as in ``WorkRecord.model``."""

    @property
    def peak_flops(self) -> float | None:
        """FLOP/s of all the devices that one engine runs on, at the precision in use; None where unknown."""

    @property
    def bandwidth_bytes_per_second(self) -> float | None:
        """Of all the devices that one engine runs on; None where unknown."""

    def step_weight_bytes(self, sequences: float) -> float | None:
        """Weights read by one decode step over so many sequences (a mixture of experts reads more of its experts
        the more there are); None where the bytes of a weight are unknown."""

    def work(self, record: WorkRecord) -> ExecutedWork | None:
        """FLOPs and bytes of a record; None where the architecture is unknown."""


def usable_kind(wanted: WeightKind, model: WorkModel | None, work: ExecutedWork | None) -> WeightKind:
    """The wanted weight, or the best that can be had: roofline time, then FLOPs, then tokens."""
    if wanted in (WeightKind.TIME, WeightKind.TOKENS):
        return wanted
    if model is None or work is None:
        return WeightKind.TOKENS
    if wanted is WeightKind.ROOFLINE_TIME and not (
        model.peak_flops and model.bandwidth_bytes_per_second and model.step_weight_bytes(1.0) is not None
    ):
        return WeightKind.FLOPS
    return wanted


_LADDER = (WeightKind.ROOFLINE_TIME, WeightKind.FLOPS, WeightKind.TOKENS, WeightKind.TIME)


def common_kind(kinds: Iterable[WeightKind], wanted: WeightKind) -> WeightKind:
    """One window is divided in one unit: the lowest that any of its work fell back to."""
    return max(kinds, key=_LADDER.index, default=wanted)


def weight(
    kind: WeightKind,
    record: WorkRecord,
    work: ExecutedWork | None,
    model: WorkModel | None,
    mean_batch: float,
) -> float:
    """Weight of a whole record: seconds for ``roofline_time`` and ``time``, else FLOPs or tokens.

    ``usable_kind`` has to have allowed the kind. ``mean_batch`` is the sequences per forward pass, at least 1.
    """
    if kind is WeightKind.TIME:
        return max(0.0, record.ended_seconds - record.started_seconds)
    if kind is WeightKind.TOKENS or work is None or model is None:
        return float(record.prefill_tokens + record.decode_tokens)
    if kind is WeightKind.FLOPS:
        return float(work.flops)
    return roofline_seconds(record, work, model, mean_batch)


def weight_bytes(record: WorkRecord, work: ExecutedWork, model: WorkModel, mean_batch: float) -> float | None:
    """Bytes of weights that a record bears: 1 / ``mean_batch`` of the read of each forward pass it took part in."""
    step = model.step_weight_bytes(mean_batch)
    if step is None:
        return None
    prefill = work.weight_bytes_prefill if record.prefill_tokens > 0 else 0.0
    return (prefill + step * record.decode_tokens) / mean_batch


def roofline_seconds(record: WorkRecord, work: ExecutedWork, model: WorkModel, mean_batch: float) -> float:
    """max(FLOPs / peak, bytes / bandwidth) of the prefill plus the same of the decode steps.

    The roofline model of Williams, Waterman and Patterson (2009); a sequence bears 1 / ``mean_batch`` of the
    weight read of each forward pass that it took part in.

    Raises:
        ValueError: peak, bandwidth or weight bytes are unknown.
    """
    peak, bandwidth, step = model.peak_flops, model.bandwidth_bytes_per_second, model.step_weight_bytes(mean_batch)
    if not peak or not bandwidth or step is None:
        raise ValueError(f"roofline time of {model.name} needs peak, bandwidth and weight bytes")
    prefill = 0.0
    if record.prefill_tokens > 0:
        prefill_bytes = work.kv_bytes_prefill + work.weight_bytes_prefill / mean_batch
        prefill = max(work.flops_prefill / peak, prefill_bytes / bandwidth)
    decode_bytes = work.kv_bytes_decode + step * record.decode_tokens / mean_batch
    return prefill + max(work.flops_decode / peak, decode_bytes / bandwidth)


def prefix_flops_avoided(record: WorkRecord, work: ExecutedWork, model: WorkModel) -> int:
    """FLOPs that the prefill would have taken without the keys and values it reused; 0 where it reused none."""
    if record.cached_tokens <= 0:
        return 0
    whole = model.work(replace(record, prefill_tokens=record.prefill_tokens + record.cached_tokens, cached_tokens=0))
    return 0 if whole is None else whole.flops_prefill - work.flops_prefill


def mean_batch_of_steps(steps: Iterable[EngineSteps], start_seconds: float, end_seconds: float) -> float | None:
    """Mean sequences per forward pass over a window, by overlap; None where no step was reported."""
    count = sequences = 0.0
    for entry in steps:
        length = entry.ended_seconds - entry.started_seconds
        if length <= 0:
            share = 1.0 if start_seconds <= entry.ended_seconds <= end_seconds else 0.0
        else:
            inside = min(entry.ended_seconds, end_seconds) - max(entry.started_seconds, start_seconds)
            share = max(0.0, inside) / length
        count += share * entry.steps
        sequences += share * entry.sequence_steps
    return max(1.0, sequences / count) if count > 0 and sequences > 0 else None


def mean_batch_of_intervals(intervals: Iterable[tuple[float, float]]) -> float:
    """Estimate where the engine reports no steps: mean number of sequences scheduled at once while any was."""
    known = list(intervals)
    union = union_seconds(known)
    return max(1.0, sum(end - start for start, end in known) / union) if union > 0 else 1.0


def mean_batches(
    intervals: Mapping[tuple[str, str], list[tuple[float, float]]],
    steps: Mapping[tuple[str, str], list[EngineSteps]],
    start_seconds: float,
    end_seconds: float,
) -> dict[tuple[str, str], float]:
    """Mean batch by (source, model): from the engine's steps, else estimated from its records."""
    out: dict[tuple[str, str], float] = {}
    for key, known in intervals.items():
        counted = mean_batch_of_steps(steps.get(key, ()), start_seconds, end_seconds)
        out[key] = counted if counted is not None else mean_batch_of_intervals(known)
    return out
