"""Where a search looks next: an engine model of the runs so far, corrected by what those runs showed.

A Gaussian process would begin with a flat prior and learn over many trials that latency grows with the batch. A step
model knows it after one run; what it does not know is learnt as a ratio of seen to predicted, smooth over the cap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serving.tuning.setting import Setting, Space
from serving.tuning.slo import Slo

Figures = Mapping[str, Any]
_REACH = math.log(2)
"""A run corrects predictions at half and at twice its cap with e^-1/2 of its weight at its own (Nadaraya 1964)."""
_OTHER_KNOBS = 0.05
"""Weight of a run with other knobs beside one with the same: an engine that was restarted is nearly another one."""
_MOST = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """A complete run."""

    setting: Setting
    figures: Figures


def candidates(space: Space, seen: set[Setting], dead: Container[Setting] = ()) -> list[Setting]:
    """Settings that were not tried and whose shell (see ``Setting.shell``) is not ``dead``; of a large space caps
    spread evenly by ratio, so that at most 64 are simulated.
    """
    shells = [one for one in space.shells() if one not in dead]
    steps = max(2, _MOST // max(1, len(shells)))
    if len(space.caps) > steps:
        ratio = space.highest_cap / space.lowest_cap
        caps_kept = {round(space.lowest_cap * ratio ** (number / (steps - 1))) for number in range(steps)}
    else:
        caps_kept = set(space.caps)
    found = [replace(one, cap=cap) for one in shells for cap in sorted(caps_kept)]
    return [one for one in found if one not in seen]


def between(tried: Sequence[tuple[Setting, bool, float]]) -> Setting | None:
    """``tried``: setting, whether it kept the promise, and its value (less is better). Halfway by ratio between the
    best that kept it and the next larger cap, other knobs alike, that did not; None where there is no room.
    """
    kept = [(value, setting) for setting, meets, value in tried if meets]
    if not kept:
        return None
    best = min(kept, key=lambda one: one[0])[1]
    broken = [setting.cap for setting, meets, _ in tried if not meets and replace(setting, cap=best.cap) == best]
    above = [cap for cap in broken if cap > best.cap + 1]
    if not above or best.cap + 1 in broken:
        return None
    return replace(best, cap=min(max(round(math.sqrt(best.cap * min(above))), best.cap + 1), min(above) - 1))


def propose(
    runs: Sequence[Seen],
    settings: Sequence[Setting],
    predict: Callable[[Sequence[Setting]], Sequence[Figures] | None],
    value: Callable[[Figures, Setting], float],
    slo: Slo,
    *,
    slack: float = 0.0,
) -> Setting | None:
    """The setting with the least predicted ``value`` among those predicted to keep the SLO; where none is, the one
    predicted closest. ``slack``: bounds exceeded by this share still pass for kept, since the best often lies where a
    prediction is not sure. None without a model, runs or settings.
    """
    if not runs or not settings:
        return None
    predictions = predict([*(run.setting for run in runs), *settings])
    if predictions is None:
        return None
    of_runs, of_settings = predictions[: len(runs)], predictions[len(runs) :]
    by_time = any(math.isinf(value(figures, one)) for figures, one in zip(of_settings, settings, strict=True))

    def measure(figures: Figures, setting: Setting) -> float:
        if not by_time:
            return value(figures, setting)
        # an unknown power: fewest seconds a token
        rate = figures.get("output_tokens_per_second")
        return 1 / rate if rate else math.inf

    def corrected(figures: Figures, setting: Setting) -> tuple[float, float]:
        weights = [_weight(run.setting, setting) for run in runs]
        goal = measure(figures, setting)
        seen = [measure(run.figures, run.setting) for run in runs]
        made = [measure(one, run.setting) for one, run in zip(of_runs, runs, strict=True)]
        goal = math.copysign(abs(goal) * _ratio(seen, made, weights), goal)
        bounds = {}
        for bound in slo.bounds:
            told = figures.get(bound.key)
            ratio = _ratio(
                [run.figures.get(bound.key) for run in runs], [one.get(bound.key) for one in of_runs], weights
            )
            bounds[bound.key] = None if told is None else told * ratio
        return max(0.0, slo.worst_excess(bounds) - slack), goal

    ranked = [(*corrected(figures, one), one) for figures, one in zip(of_settings, settings, strict=True)]
    return min(ranked, key=lambda one: (one[0], one[1], one[2].cap))[2]


def _weight(run: Setting, setting: Setting) -> float:
    apart = math.log(run.cap / setting.cap) / _REACH
    near = math.exp(-apart * apart / 2)
    return max(1e-9, near * (1.0 if run.shell == setting.shell else _OTHER_KNOBS))


def _ratio(seen: Sequence[float | None], made: Sequence[float | None], weights: Sequence[float]) -> float:
    """Seen over predicted, geometric mean by weight; 1 where nothing can be compared."""
    logs = [
        (math.log(abs(a) / abs(b)), weight)
        for a, b, weight in zip(seen, made, weights, strict=True)
        if a and b and math.isfinite(a) and math.isfinite(b)
    ]
    total = sum(weight for _, weight in logs)
    return math.exp(sum(log * weight for log, weight in logs) / total) if total else 1.0
