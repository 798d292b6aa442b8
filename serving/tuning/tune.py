"""The whole of tuning: search, confirm with alternating repeats, recommend, and say why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

from serving.tuning.bench import Bench
from serving.tuning.search import Goal, Tried, errors_of, incomplete, kept, knee, pareto
from serving.tuning.setting import Setting
from serving.tuning.statistics import Interval, paired_ratio
from serving.tuning.study import Pairs
from serving.tuning.workload import Workload

_CANDIDATES = 3
"""Settings that are repeated at most: each costs ``repeats`` runs of two settings."""
_CLOSE = 0.1
"""Of the objective and of the bound: single runs this near each other are not told apart. On a shared machine the grams
of one setting differed by 10 to 15 % between runs of the same quarter of an hour (``tests/bench/tuning``)."""


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
    bend = knee(front, goal)
    meeting = sorted((one for one in tried if one.meets), key=lambda one: goal.value(one.figures))
    if not meeting:
        closest = _closest(tried, goal)
        return Recommendation(None, current, None, _infeasible(goal, closest), closest, front, bend)
    best = meeting[0]
    if best.setting == current:
        return Recommendation(current, current, None, f"The current setting ({current}) is the best of {len(tried)} "
                              f"tried: {_figures(best, goal)}.", None, front, bend)  # fmt: skip
    if repeats < 1:
        why = f"{best.setting}: {_figures(best, goal)}. Not repeated: one run, no interval."
        return Recommendation(best.setting, current, None, why, None, front, bend)
    order: list[dict[str, Any]] = []
    broke: list[Tried] = []
    runner = _Runner(bench, workload, goal, current, repeats, told, pairs or Pairs(None), over)
    close = _close(tried, meeting, current, goal)
    held: list[tuple[Tried, _Repeats]] = []
    for candidate in (*close, *(one for one in meeting if one not in close))[:_CANDIDATES]:
        # past the current setting all are worse than it; past those close to the best, one that held is enough
        if candidate.setting == current or (held and candidate not in close):
            break
        pair = runner.repeated(candidate.setting, seed + len(order))
        order += pair.in_order
        if not pair.runs[candidate.setting]:
            if held:
                break
            # no recommendation is what broke the SLO: in its only run, or in its repeats
            better = takewhile(lambda one: one.setting != current, meeting)
            rest = [one for one in (candidate, *better) if one.meets and one not in broke]
            if not rest:
                break
            candidate = rest[0]
            why = f"{candidate.setting}: {_figures(candidate, goal)}. Not repeated ({pair.cut}): one run, no interval."
            why += _broken_in_repeats(broke)
            return Recommendation(candidate.setting, current, None, why, None, front, bend, tuple(order))
        if pair.kept(candidate.setting, goal) * 2 > len(pair.runs[candidate.setting]):
            held.append((candidate, pair))
        else:
            broke.append(candidate)
    if held:
        found, pair = min(held, key=lambda one: _over_current(one[0], one[1], goal))
        others = [one for one, _ in held if one is not found]
        return _compared(found, pair, broke, others, goal, front, bend, tuple(order))
    note = _broken_in_repeats(broke)
    now = next((one for one in meeting if one.setting == current), None)
    runs = [one["figures"] for one in order if one["setting"] == asdict(current)]
    if now is not None and sum(kept(figures, goal.slo) for figures in runs) * 2 > len(runs):
        why = f"The current setting stays: {_figures(now, goal)}.{note}"
        return Recommendation(current, current, None, why, None, front, bend, tuple(order))
    closest = broke[0]
    why = f"No setting kept the SLO in its repeats.{note} The closest is {closest.setting}: widen the SLO or --caps."
    return Recommendation(None, current, None, why, closest, front, bend, tuple(order))


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


def _over_current(candidate: Tried, pair: _Repeats, goal: Goal) -> float:
    """Mean of the objective over the current setting's, run by run in turn; less is better."""
    ours, base = (pair.values(setting, goal) for setting in (candidate.setting, pair.current))
    if any(not math.isfinite(value) or value <= 0 for value in (*ours, *base)):
        return math.inf
    ratio = paired_ratio(ours, base).value
    return -ratio if goal.objective == "tokens" else ratio


@dataclass(frozen=True)
class _Repeats:
    """Runs of two settings in turn."""

    current: Setting
    runs: Mapping[Setting, Sequence[dict[str, Any]]]
    in_order: Sequence[dict[str, Any]]
    cut: str | None
    """Why there are fewer than asked for."""

    def kept(self, setting: Setting, goal: Goal) -> int:
        """Runs of ``setting`` in which the SLO held."""
        return sum(kept(figures, goal.slo) for figures in self.runs[setting])

    def values(self, setting: Setting, goal: Goal) -> list[float]:
        """The objective in each run of ``setting``, as it is printed."""
        return [abs(goal.value(figures)) for figures in self.runs[setting]]


@dataclass(frozen=True)
class _Runner:
    """What repeats are run with."""

    bench: Bench
    workload: Workload
    goal: Goal
    current: Setting
    repeats: int
    told: Callable[[str], None]
    pairs: Pairs
    over: Callable[[], str | None]

    def repeated(self, best: Setting, seed: int) -> _Repeats:
        runs: dict[Setting, list[dict[str, Any]]] = {best: [], self.current: []}
        order: list[dict[str, Any]] = []
        broken = 0
        cut = None
        for number in range(self.repeats):
            # enough of them broke the SLO: the rest cannot make it the recommendation
            if broken * 2 >= self.repeats:
                break
            key = {"current": asdict(self.current), "best": asdict(best), "number": number}
            pair = self.pairs.find(key)
            if pair is None:
                cut = self.over()
                if cut is not None:
                    break
                pair = self._pair(best, number, seed)
                self.pairs.add(key, pair)
            for one in pair:
                runs[Setting(**one["setting"])].append(one["figures"])
            order += pair
            broken += not kept(runs[best][-1], self.goal.slo)
        return _Repeats(self.current, runs, order, cut)

    def _pair(self, best: Setting, number: int, seed: int) -> list[dict[str, Any]]:
        pair = []
        for setting in (self.current, best) if number % 2 == 0 else (best, self.current):
            self.told(f"repeat {number + 1} of {self.repeats}: {setting}")
            figures = self.bench.run(setting, self.workload, seed=seed + number, hopeless=False)
            pair.append({"setting": asdict(setting), "figures": self.goal.rated(figures, setting)})
        return pair


def _compared(
    best: Tried,
    pair: _Repeats,
    broke: Sequence[Tried],
    others: Sequence[Tried],
    goal: Goal,
    front: tuple[Tried, ...],
    bend: Tried | None,
    order: tuple[dict[str, Any], ...],
) -> Recommendation:
    """The better of the two that were repeated; ``best`` kept the SLO in most of its runs, and was the best of
    ``others`` in theirs.
    """
    current, repeats = pair.current, len(pair.runs[best.setting])
    held = pair.kept(best.setting, goal)
    room = "" if held == repeats else f" It met the SLO in {held} of {repeats} repeats: leave some room."
    notes = "" if pair.cut is None else f" Repeated {repeats} times only: {pair.cut}."
    if others:
        notes += f" Its repeats were better than those of {'; '.join(str(one.setting) for one in others)}."
    notes += _broken_in_repeats(broke)
    ours, base = (pair.values(setting, goal) for setting in (best.setting, current))
    if any(not math.isfinite(value) or value <= 0 for value in (*ours, *base)):
        why = f"{best.setting}: {_figures(best, goal)}. A repeat lacked {goal.key}: no interval.{room}{notes}"
        return Recommendation(best.setting, current, None, why, None, front, bend, order)
    gain = paired_ratio(ours, base)
    current_meets = pair.kept(current, goal) * 2 > repeats
    figure = f"{goal.key} over the current setting's is {gain}"
    if not _better(gain, goal) and current_meets:
        why = f"The current setting stays: the best found ({best.setting}) is not surely better; {figure}.{notes}"
        return Recommendation(current, current, gain, why, None, front, bend, order)
    reason = "" if current_meets else " The current setting breaks the SLO."
    why = f"{best.setting}: {_figures(best, goal)}; {figure}.{reason}{room}{notes}"
    return Recommendation(best.setting, current, gain, why, None, front, bend, order)


def _better(gain: Interval, goal: Goal) -> bool:
    """Surely, by the whole interval; where a single pair has none, in that pair, as it is said."""
    if goal.objective == "tokens":
        return (gain.value if gain.low is None else gain.low) > 1
    return (gain.value if gain.high is None else gain.high) < 1


def _broken_in_repeats(broke: Sequence[Tried]) -> str:
    return "" if not broke else f" Broke the SLO in its repeats: {'; '.join(str(one.setting) for one in broke)}."


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
