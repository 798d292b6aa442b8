"""Repeats of two settings in turn: what a single run on a noisy machine cannot tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serving.tuning.bench import Bench
from serving.tuning.goal import Goal, kept
from serving.tuning.setting import Setting
from serving.tuning.statistics import Interval, paired_ratio
from serving.tuning.study import Pairs
from serving.tuning.workload import Workload


@dataclass(frozen=True)
class Repeats:
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

    def gain(self, candidate: Setting, goal: Goal) -> Interval | None:
        """The objective of the candidate over the current setting's, run by run in turn; None where a run lacks it."""
        ours, base = self.values(candidate, goal), self.values(self.current, goal)
        if any(not math.isfinite(value) or value <= 0 for value in (*ours, *base)):
            return None
        return paired_ratio(ours, base)

    def rank(self, candidate: Setting, goal: Goal) -> float:
        """By how far it is better than the current setting; less is better."""
        gain = self.gain(candidate, goal)
        if gain is None:
            return math.inf
        return -gain.value if goal.objective == "tokens" else gain.value


@dataclass(frozen=True)
class Repeater:
    """Runs a candidate and the current setting in turn (A B, B A, ...): a drift of the machine meets both alike."""

    bench: Bench
    workload: Workload
    goal: Goal
    current: Setting
    repeats: int
    told: Callable[[str], None]
    pairs: Pairs
    over: Callable[[], str | None]

    def repeated(self, best: Setting, seed: int) -> Repeats:
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
        return Repeats(self.current, runs, order, cut)

    def _pair(self, best: Setting, number: int, seed: int) -> list[dict[str, Any]]:
        pair = []
        for setting in (self.current, best) if number % 2 == 0 else (best, self.current):
            self.told(f"repeat {number + 1} of {self.repeats}: {setting}")
            figures = self.bench.run(setting, self.workload, seed=seed + number, hopeless=False)
            pair.append({"setting": asdict(setting), "figures": self.goal.rated(figures, setting)})
        return pair
