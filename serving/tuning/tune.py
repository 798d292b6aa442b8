"""The whole of tuning: search, confirm with alternating repeats, recommend, and say why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from typing import Any

from serving.tuning.bench import Bench
from serving.tuning.goal import Goal, Tried, errors_of, incomplete, kept
from serving.tuning.pareto import knee, pareto
from serving.tuning.repeats import Repeater, Repeats
from serving.tuning.setting import Setting
from serving.tuning.statistics import Interval
from serving.tuning.study import Pairs
from serving.tuning.workload import Workload

_CANDIDATES = 3
"""Settings that are repeated at most: each costs ``repeats`` runs of two settings."""
_CLOSE = 0.1
"""Of the objective and of the bound: single runs this near each other are not told apart. On a shared machine the grams
of one setting differed by 10 to 15 % between runs of the same quarter of an hour (``tests/bench/tuning``)."""
_ONE_RUN = "Not repeated{}: one run, no interval."


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
    pairs: Pairs | None = None,
    over: Callable[[], str | None] = lambda: None,
) -> Recommendation:
    """The best that met the SLO, confirmed against the current setting: ``repeats`` runs of each in alternating order
    (A B, B A, ...), so that a drift of the machine meets both alike. What a single run cannot tell from the best is
    repeated too, and what missed the SLO by as little; the best of their repeats counts. One that breaks the SLO in
    most of its repeats was lucky in the search: the next best takes its place. A gain whose interval holds 1 is no
    gain: the current setting stays, if it meets the SLO itself. ``current`` must be written with the knobs that the
    space has.

    ``pairs``: of an earlier sitting; they are not run again. ``over``: says before a pair that is to run why none may
    any more (then what there is has to do), or None.
    """
    goal = goal.counting_as(one.figures for one in tried)
    front = tuple(pareto(tried, goal))
    nothing = Recommendation(None, current, None, "", None, front, knee(front, goal))
    meeting = sorted((one for one in tried if one.meets), key=lambda one: goal.value(one.figures))
    if not meeting:
        closest = _closest(tried, goal)
        return replace(nothing, why=_infeasible(goal, closest), closest=closest)
    best = meeting[0]
    figures = _figures(best, goal)
    if best.setting == current:
        why = f"The current setting ({current}) is the best of {len(tried)} tried: {figures}."
        return replace(nothing, setting=current, why=why)
    if repeats < 1:
        return replace(nothing, setting=best.setting, why=f"{best.setting}: {figures}. {_ONE_RUN.format('')}")
    repeater = Repeater(bench, workload, goal, current, repeats, told, pairs or Pairs(None), over)
    close = _close(tried, meeting, current, goal)
    seen = _repeat(repeater, [*close, *(one for one in meeting if one not in close)], len(close), seed)
    return _chosen(replace(nothing, repeats=tuple(seen.in_order)), seen, meeting, goal)


@dataclass
class _Seen:
    """What became of the candidates in their repeats."""

    held: list[tuple[Tried, Repeats]] = field(default_factory=list)
    """Kept the SLO in most of their runs."""
    broke: list[Tried] = field(default_factory=list)
    unrepeated: tuple[Tried, str] | None = None
    """Was not repeated before the end, and why that came."""
    in_order: list[dict[str, Any]] = field(default_factory=list)

    @property
    def note(self) -> str:
        if not self.broke:
            return ""
        return f" Broke the SLO in its repeats: {'; '.join(str(one.setting) for one in self.broke)}."


def _repeat(repeater: Repeater, candidates: Sequence[Tried], close: int, seed: int) -> _Seen:
    """``candidates`` in order, the first ``close`` of which single runs do not tell apart."""
    seen = _Seen()
    for number, candidate in enumerate(candidates[:_CANDIDATES]):
        # past the current setting all are worse than it; past those close to the best, one that held is enough
        if candidate.setting == repeater.current or (seen.held and number >= close):
            break
        pair = repeater.repeated(candidate.setting, seed + len(seen.in_order))
        seen.in_order += pair.in_order
        runs = len(pair.runs[candidate.setting])
        if not runs:
            seen.unrepeated = candidate, pair.cut or ""
            break
        if pair.kept(candidate.setting, repeater.goal) * 2 > runs:
            seen.held.append((candidate, pair))
        else:
            seen.broke.append(candidate)
    return seen


def _chosen(nothing: Recommendation, seen: _Seen, meeting: Sequence[Tried], goal: Goal) -> Recommendation:
    """Of those that held the best in their repeats; else what is left without any, or the current setting."""
    current = nothing.current
    if seen.held:
        found, pair = min(seen.held, key=lambda one: one[1].rank(one[0].setting, goal))
        return _compared(nothing, found, pair, seen, goal)
    if seen.unrepeated is not None:
        candidate, cut = seen.unrepeated
        # no recommendation is what broke the SLO: in its only run, or in its repeats
        better = takewhile(lambda one: one.setting != current, meeting)
        rest = [one for one in (candidate, *better) if one.meets and one not in seen.broke]
        if rest:
            why = f"{rest[0].setting}: {_figures(rest[0], goal)}. {_ONE_RUN.format(f' ({cut})')}{seen.note}"
            return replace(nothing, setting=rest[0].setting, why=why)
    now = next((one for one in meeting if one.setting == current), None)
    runs = [one["figures"] for one in nothing.repeats if one["setting"] == asdict(current)]
    if now is not None and sum(kept(figures, goal.slo) for figures in runs) * 2 > len(runs):
        return replace(nothing, setting=current, why=f"The current setting stays: {_figures(now, goal)}.{seen.note}")
    closest = seen.broke[0]
    why = (
        f"No setting kept the SLO in its repeats.{seen.note} The closest is {closest.setting}: widen the SLO or --caps."
    )
    return replace(nothing, why=why, closest=closest)


def _close(tried: Sequence[Tried], meeting: Sequence[Tried], current: Setting, goal: Goal) -> list[Tried]:
    """What a single run cannot tell from the best of ``meeting``: better than the current setting, best first."""
    best = goal.value(meeting[0].figures)
    reach = best + _CLOSE * abs(best)
    ahead = [one for one in meeting if goal.value(one.figures) <= reach]
    names = [one.setting for one in ahead]
    if current in names:
        ahead = ahead[: names.index(current)]
    unlucky = [
        one
        for one in tried
        if 0 < one.worst_excess <= _CLOSE
        and goal.value(one.figures) <= best
        and one.setting != current
        and not incomplete(one.figures)
    ]
    # one at most: where the promise is really broken there, the places are needed for those that keep it
    return sorted(
        (*ahead, *sorted(unlucky, key=lambda one: one.worst_excess)[:1]), key=lambda one: goal.value(one.figures)
    )


def _compared(nothing: Recommendation, best: Tried, pair: Repeats, seen: _Seen, goal: Goal) -> Recommendation:
    """The better of the two that were repeated; ``best`` kept the SLO in most of its runs, and was the best of all that
    held in theirs.
    """
    current, repeats = nothing.current, len(pair.runs[best.setting])
    held = pair.kept(best.setting, goal)
    others = [one for one, _ in seen.held if one is not best]
    room = "" if held == repeats else f" It met the SLO in {held} of {repeats} repeats: leave some room."
    notes = "" if pair.cut is None else f" Repeated {repeats} times only: {pair.cut}."
    if others:
        notes += f" Its repeats were better than those of {'; '.join(str(one.setting) for one in others)}."
    notes += seen.note
    gain = pair.gain(best.setting, goal)
    if gain is None:
        why = f"{best.setting}: {_figures(best, goal)}. A repeat lacked {goal.key}: no interval.{room}{notes}"
        return replace(nothing, setting=best.setting, why=why)
    current_meets = pair.kept(current, goal) * 2 > repeats
    figure = f"{goal.key} over the current setting's is {gain}"
    if not _better(gain, goal) and current_meets:
        why = f"The current setting stays: the best found ({best.setting}) is not surely better; {figure}.{notes}"
        return replace(nothing, setting=current, gain=gain, why=why)
    reason = "" if current_meets else " The current setting breaks the SLO."
    why = f"{best.setting}: {_figures(best, goal)}; {figure}.{reason}{room}{notes}"
    return replace(nothing, setting=best.setting, gain=gain, why=why)


def _better(gain: Interval, goal: Goal) -> bool:
    """Surely, by the whole interval; where a single pair has none, in that pair, as it is said."""
    if goal.objective == "tokens":
        return (gain.value if gain.low is None else gain.low) > 1
    return (gain.value if gain.high is None else gain.high) < 1


def _closest(tried: Sequence[Tried], goal: Goal) -> Tried | None:
    return min(tried, key=lambda one: (one.worst_excess, goal.value(one.figures)), default=None)


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
    failed = errors_of(closest.figures)
    if failed:
        broken.append(f"{closest.figures['requests'] - closest.figures['completed']} requests failed ({failed})")
    what = "; ".join(broken) or "the run was ended early"
    return f"No setting that was tried meets the SLO. The closest is {closest.setting}: {what}."
