"""Which trials no other one beats, and where their frontier bends."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace

from serving.tuning.goal import TOKENS_KEY, Goal, Tried


def pareto(tried: Sequence[Tried], goal: Goal) -> list[Tried]:
    """Trials that meet the SLO and that no other of them beats in the latency, in the objective (grams, where that is
    throughput) and in throughput; by latency.
    """
    return sorted(_front(tried, goal, [_latency, _amount, _slowness]), key=lambda one: _latency(one, goal))


def knee(front: Sequence[Tried], goal: Goal) -> Tried | None:
    """Where the frontier of latency and objective bends: farthest from the line between its ends, both axes scaled to
    0..1 (Satopaa et al. 2011). None below three points.
    """
    front = sorted(_front(front, goal, [_latency, _value]), key=lambda one: _latency(one, goal))
    if len(front) < 3:
        return None
    latency = [_latency(one, goal) for one in front]
    value = [goal.value(one.figures) for one in front]
    wide, high = latency[-1] - latency[0], value[0] - value[-1]
    if not (0 < wide < math.inf and 0 < high < math.inf):
        return None
    depth = [1 - (x - latency[0]) / wide - (y - value[-1]) / high for x, y in zip(latency, value, strict=True)]
    best = max(range(len(front)), key=lambda index: depth[index])
    return front[best] if depth[best] > 0 else None


def _front(tried: Sequence[Tried], goal: Goal, axes: Sequence[Callable[[Tried, Goal], float]]) -> list[Tried]:
    """Those that no other one beats on every axis; less is better."""
    met = [one for one in tried if one.meets]
    points = [tuple(axis(one, goal) for axis in axes) for one in met]
    return [
        one
        for one, mine in zip(met, points, strict=True)
        if not any(other != mine and all(map(operator.le, other, mine)) for other in points)
    ]


def _latency(one: Tried, goal: Goal) -> float:
    return one.figures.get(goal.latency_key) or math.inf


def _value(one: Tried, goal: Goal) -> float:
    return goal.value(one.figures)


def _amount(one: Tried, goal: Goal) -> float:
    return (replace(goal, objective="grams") if goal.objective == "tokens" else goal).value(one.figures)


def _slowness(one: Tried, goal: Goal) -> float:
    return -(one.figures.get(TOKENS_KEY) or 0.0)
