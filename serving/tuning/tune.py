"""The whole of tuning: search, confirm with alternating repeats, recommend, and say why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serving.tuning.bench import Bench
from serving.tuning.search import Goal, Tried, knee, pareto
from serving.tuning.setting import Setting
from serving.tuning.statistics import Interval, bootstrap_ratio
from serving.tuning.workload import Workload


@dataclass(frozen=True)
class Recommendation:
    """``setting`` is None where nothing met the SLO; ``gain`` is the objective of the recommended over the current
    one, below 1 better (for tokens above 1), None where they are the same or were not repeated.
    """

    setting: Setting | None
    current: Setting
    gain: Interval | None
    why: str
    closest: Tried | None
    front: tuple[Tried, ...]
    knee: Tried | None
    repeats: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "feasible": self.setting is not None,
            "recommended": None if self.setting is None else asdict(self.setting),
            "current": asdict(self.current),
            "gain": None if self.gain is None else self.gain.as_dict(),
            "why": self.why,
            "closest": None if self.closest is None else self.closest.as_dict(),
            "frontier": [one.as_dict() for one in self.front],
            "knee": None if self.knee is None else self.knee.as_dict(),
            "repeats": list(self.repeats),
        }


def recommend(
    bench: Bench,
    workload: Workload,
    goal: Goal,
    current: Setting,
    tried: Sequence[Tried],
    *,
    repeats: int = 3,
    seed: int = 10_000,
    told: Callable[[str], None] = lambda text: None,
) -> Recommendation:
    """The best that met the SLO, confirmed against the current setting: ``repeats`` runs of each in alternating order
    (A B, B A, ...), so that a drift of the machine meets both alike. A gain whose interval holds 1 is no gain: the
    current setting stays, if it meets the SLO itself. ``current`` must be written with the knobs that the space has.
    """
    front = tuple(pareto(tried, goal))
    bend = knee(front, goal)
    meeting = [one for one in tried if one.meets]
    if not meeting:
        closest = min(tried, key=lambda one: (one.worst_excess, goal.value(one.figures)), default=None)
        return Recommendation(None, current, None, _infeasible(goal, closest), closest, front, bend)
    best = min(meeting, key=lambda one: goal.value(one.figures))
    now = next((one for one in tried if one.setting == current), None)
    if best.setting == current:
        return Recommendation(current, current, None, f"The current setting ({current}) is the best of {len(tried)} "
                              f"tried: {_figures(best, goal)}.", None, front, bend)  # fmt: skip
    if repeats < 1:
        why = f"{best.setting}: {_figures(best, goal)}. Not repeated: one run, no interval."
        return Recommendation(best.setting, current, None, why, None, front, bend)
    runs: dict[Setting, list[dict[str, Any]]] = {best.setting: [], current: []}
    order: list[dict[str, Any]] = []
    for number in range(repeats):
        pair = (current, best.setting) if number % 2 == 0 else (best.setting, current)
        for setting in pair:
            told(f"repeat {number + 1} of {repeats}: {setting}")
            figures = goal.priced(bench.run(setting, workload, seed=seed + number, hopeless=False), setting)
            runs[setting].append(figures)
            order.append({"setting": asdict(setting), "figures": figures})
    ours, base = ([abs(goal.value(figures)) for figures in runs[setting]] for setting in (best.setting, current))
    if any(not math.isfinite(value) or value <= 0 for value in (*ours, *base)):
        why = f"{best.setting}: {_figures(best, goal)}. A repeat lacked {goal.key}: no interval."
        return Recommendation(best.setting, current, None, why, None, front, bend, tuple(order))
    gain = bootstrap_ratio(ours, base)
    surely = gain.low > 1 if goal.objective == "tokens" else gain.high < 1
    current_meets = now.meets if now is not None else all(goal.slo.met(figures) for figures in runs[current])
    kept = sum(goal.slo.met(figures) for figures in runs[best.setting])
    figure = f"{goal.key} is {gain.value:.3g} times the current ({gain.low:.3g} to {gain.high:.3g}, 95 %)"
    notes = "" if kept == repeats else f" It met the SLO in {kept} of {repeats} repeats: leave some room."
    if not surely and current_meets:
        why = f"The current setting stays: the best found ({best.setting}) is not surely better; {figure}."
        return Recommendation(current, current, gain, why, None, front, bend, tuple(order))
    reason = "" if current_meets else " The current setting breaks the SLO."
    why = f"{best.setting}: {_figures(best, goal)}; {figure}.{reason}{notes}"
    return Recommendation(best.setting, current, gain, why, None, front, bend, tuple(order))


def _figures(one: Tried, goal: Goal) -> str:
    bounds = ", ".join(f"{bound.metric} p{bound.percentile} {one.figures[bound.key]:.3g} s of {bound.seconds:g} s"
                       for bound in goal.slo.bounds)  # fmt: skip
    return f"{goal.key} {one.figures[goal.key]:.4g}{', ' + bounds if bounds else ''}"


def _infeasible(goal: Goal, closest: Tried | None) -> str:
    if closest is None:
        return "Nothing was tried: give a larger budget."
    broken = [
        f"{bound} was {'unknown' if math.isinf(excess) else f'{closest.figures[bound.key]:.3g} s'}"
        for bound, excess in zip(goal.slo.bounds, goal.slo.excesses(closest.figures), strict=True)
        if excess > 0
    ]
    what = "; ".join(broken) or "requests failed or the run was ended early"
    return f"No setting that was tried meets the SLO. The closest is {closest.setting}: {what}."
