"""A recorded workload put to the controller on a modelled engine, window by window: before it is trusted with a real
one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.tuning.controller import Controller, Decision, Window
from serving.tuning.engine_model import EngineModel
from serving.tuning.slo import Slo
from serving.tuning.workload import Workload

Intensity = Callable[[float], float | None]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of it. ``kept_ratio``: share of the windows with tokens in which every bound held."""

    seconds: float
    tokens: int
    busy_seconds: float
    kept_ratio: float
    good_requests_ratio: float
    """Share of the requests that kept the promise themselves."""
    windows: tuple[Window, ...]
    decisions: tuple[Decision, ...]
    caps: tuple[int, ...]
    """At the end of each window."""


@dataclass(slots=True)
class _Seen:
    """Of the window that is open."""

    ttft: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    gap_weights: list[int] = field(default_factory=list)
    tokens: int = 0
    running: float = 0.0
    waiting: float = 0.0


def replay(
    workload: Workload,
    engine: EngineModel,
    cap: int,
    slo: Slo,
    *,
    controller: Controller | None = None,
    window_seconds: float = 5.0,
    max_batched_tokens: int = 2048,
    intensity: Intensity = lambda seconds: None,
    at_window: Callable[[int, Controller], None] = lambda number, controller: None,
) -> Replayed:
    """One replica, step by step; without a controller the cap stays. ``at_window`` may change the controller's
    settings (an SLO that changes).
    """
    arrivals, prompts = workload.arrival_seconds.tolist(), workload.prompt_tokens.tolist()
    outputs = workload.output_tokens.tolist()
    queue: deque[int] = deque()
    prefilling: deque[list[int]] = deque()
    running: dict[int, int] = {}
    first, end = np.full(len(arrivals), np.nan), np.full(len(arrivals), np.nan)
    windows: list[Window] = []
    decisions: list[Decision] = []
    caps: list[int] = []
    now = opened = busy = 0.0
    upcoming = 0
    seen = _Seen()

    def close(until: float) -> None:
        nonlocal opened, seen, cap
        while until - opened >= window_seconds:
            opened += window_seconds
            window = Window(
                opened,
                float(np.percentile(seen.ttft, 95)) if seen.ttft else None,
                _weighted(seen.gaps, seen.gap_weights, 0.95) if seen.gaps else None,
                seen.tokens,
                window_seconds,
                seen.running / window_seconds,
                seen.waiting / window_seconds,
                intensity_grams_per_kwh=intensity(opened),
            )
            windows.append(window)
            if controller is not None:
                at_window(len(windows), controller)
                decisions.append(controller.observe(window))
                cap = controller.cap
            caps.append(cap)
            seen = _Seen()

    while True:
        while upcoming < len(arrivals) and arrivals[upcoming] <= now:
            queue.append(upcoming)
            upcoming += 1
        while queue and len(prefilling) + len(running) < cap:
            prefilling.append([queue.popleft(), 0])
        if not prefilling and not running:
            if upcoming >= len(arrivals):
                break
            close(arrivals[upcoming])
            now = arrivals[upcoming]
            continue
        room, tokens, pairs = max(16, max_batched_tokens - len(running)), 0, 0.0
        done = []
        while prefilling and tokens < room:
            entry = prefilling[0]
            chunk = min(prompts[entry[0]] - entry[1], room - tokens)
            tokens += chunk
            pairs += chunk * (entry[1] + (chunk + 1) / 2)
            entry[1] += chunk
            if entry[1] == prompts[entry[0]]:
                done.append(prefilling.popleft()[0])
        context = sum(prompts[index] + made for index, made in running.items())
        took = engine.step_seconds(len(running), tokens, context, pairs)
        now += took
        busy += took
        seen.running += took * (len(running) + len(prefilling) + len(done))
        seen.waiting += took * len(queue)
        if running:
            seen.gaps.append(took)
            seen.gap_weights.append(len(running))
        seen.tokens += len(running) + len(done)
        for index in [index for index, made in running.items() if made + 1 >= outputs[index]]:
            end[index] = now
            del running[index]
        for index in running:
            running[index] += 1
        for index in done:
            first[index] = now
            seen.ttft.append(now - arrivals[index] + engine.overhead_seconds)
            if outputs[index] == 1:
                end[index] = now
            else:
                running[index] = 1
        close(now)
    ttft, e2e = first - workload.arrival_seconds, end - workload.arrival_seconds
    each = (end - first) / np.maximum(1, workload.output_tokens - 1)
    good = [slo.request_met(*values) for values in zip(ttft.tolist(), each.tolist(), e2e.tolist(), strict=True)]
    return Replayed(
        now, int(workload.output_tokens.sum()), busy, kept_ratio(windows, slo), float(np.mean(good)),
        tuple(windows), tuple(decisions), tuple(caps),
    )  # fmt: skip


def kept_ratio(windows: Sequence[Window], slo: Slo) -> float:
    """Share of the windows with tokens in which p95 of each bound held; 1 without any."""
    figures = [
        {"ttft_p95_seconds": window.ttft_p95_seconds or 0.0, "itl_p95_seconds": window.itl_p95_seconds or 0.0}
        for window in windows
        if window.tokens
    ]
    return sum(slo.met(one) for one in figures) / len(figures) if figures else 1.0


def _weighted(values: Sequence[float], weights: Sequence[int], share: float) -> float:
    """The value below which ``share`` of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(np.asarray(weights)[order])
    return float(values[order[np.searchsorted(reached, share * reached[-1])]])
