"""From closed windows and served answers to rows of the history."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields

from metering.books import ClosedWindow, LineTotals
from metering.history import (
    SECONDS_PER_MINUTE,
    History,
    NodeKey,
    NodeTotals,
    ServedKey,
    ServedTotals,
    Usage,
    UsageKey,
    add_up,
)
from metering.idle import IdlePolicy
from metering.power.base import Boundary
from metering.settlement import weakest
from metering.work import Method, Served


def window_rows(
    closed: ClosedWindow,
    *,
    method: Method,
    power: str,
    peak_flops: Mapping[str, float | None],
    embodied: Collection[str],
    priced: Collection[str] = (),
    price_per_kwh: float | None = None,
) -> History:
    """Rows of one window. ``peak_flops`` by model, FLOP/s of one engine; ``embodied`` and ``priced`` name the
    components with it."""
    minute = int(closed.closed_epoch_seconds // SECONDS_PER_MINUTE)
    out = History()
    metered = [close.component.name for close in closed.components if close.energy_nanojoules is not None]
    for close in closed.components:
        component = close.component
        node_key = NodeKey(minute, component.name, component.boundary.value, close.method.value, close.power)
        gap = closed.window.seconds if close.energy_nanojoules is None else 0.0
        out.node[node_key] = NodeTotals(
            metered_nanojoules=(close.energy_nanojoules or 0) + close.recovered_nanojoules,
            idle_nanojoules=close.idle_nanojoules,
            unattributed_nanojoules=close.unattributed_nanojoules,
            window_seconds=closed.window.seconds,
            busy_seconds=close.busy_seconds,
            gap_seconds=gap,
        )
    stamp = closed.stamp
    for (model, tenant), line in closed.lines.items():
        key = UsageKey(
            minute,
            model,
            tenant,
            weakest([method, *line.methods]).value,
            power,
            stamp.zone if stamp else "",
            stamp.source if stamp else "",
            stamp.signal if stamp else "",
        )
        row = _usage(line, peak_flops.get(model))
        row.unmetered_seconds = _seconds(line, line.seconds_by_device.keys() - metered)
        row.embodied_seconds = _seconds(line, embodied)
        row.device_priced_seconds = _seconds(line, priced)
        row.electricity_priced_seconds = 0.0 if price_per_kwh is None else _seconds(line, metered)
        row.unreserved_seconds = 0.0 if closed.idle_policy is IdlePolicy.RESERVED else line.device_seconds
        add_up(out.usage.setdefault(key, Usage()), row)
    return out


def served_rows(answers: Iterable[Served], at_epoch_seconds: float) -> History:
    """Rows of what a replica reported."""
    minute = int(at_epoch_seconds // SECONDS_PER_MINUTE)
    out = History()
    for answer in answers:
        totals = ServedTotals(**{column.name: getattr(answer, column.name) for column in fields(ServedTotals)})
        add_up(out.served.setdefault(ServedKey(minute, answer.model, answer.tenant), ServedTotals()), totals)
    return out


def _seconds(line: LineTotals, devices: Collection[str]) -> float:
    """The line's device-seconds on these; another model's devices say nothing of its own."""
    return sum(seconds for name, seconds in line.seconds_by_device.items() if name in devices)


def _usage(line: LineTotals, peak_flops: float | None) -> Usage:
    amounts = [*line.work.values(), line.idle]
    return Usage(
        flops_prefill=float(line.flops_prefill),
        flops_decode=float(line.flops_decode),
        tokens_prefill=line.tokens_prefill,
        tokens_cached=line.tokens_cached,
        tokens_decode=line.tokens_decode,
        preemptions=line.preemptions,
        device_seconds=line.device_seconds,
        peak_flop_seconds=(peak_flops or 0.0) * line.device_seconds,
        accelerator_nanojoules=line.work[Boundary.ACCELERATOR].energy_nanojoules,
        host_nanojoules=line.work[Boundary.HOST].energy_nanojoules,
        idle_nanojoules=line.idle.energy_nanojoules,
        overhead_nanojoules=sum(part.overhead_nanojoules for part in amounts),
        operational_nanograms=sum(part.operational_nanograms for part in amounts),
        embodied_nanograms=sum(part.embodied_nanograms for part in amounts),
        unstamped_nanojoules=sum(part.unstamped_nanojoules for part in amounts),
        roofline_seconds=line.roofline_seconds,
        roofline_alone_seconds=line.roofline_alone_seconds,
        prefix_flops_avoided=float(line.prefix_flops_avoided),
        device_nanocost=sum(part.device_nanocost for part in amounts),
        electricity_nanocost=sum(part.electricity_nanocost for part in amounts),
    )
