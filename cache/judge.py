"""The judge that serves and the judge that evaluates: guards, score, policy, in that order."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cache.calibration import Calibrator
from cache.features import features
from cache.guards import GUARD_VERSION, compare, refusal
from cache.judgement import Neighbour, Verdict
from cache.language.lexicon import LANGUAGES, lexicon
from cache.score import Score, shipped_score
from cache.vcache import VCachePolicy

PolicyName = Literal["conformal", "vcache", "threshold"]
MOST_NEIGHBOURS = 5
LONGEST_TEXT = 6000
"""Characters: a text of 256 word pieces is shorter; beyond it nothing is served on likeness."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What is thought of one neighbour, before any policy."""

    score: float
    """In [0, 1]; 0 where a guard refused."""
    guard: str | None = None
    reason: str = ""


class Policy(Protocol):
    """Serve this neighbour?"""

    name: PolicyName

    @property
    def threshold(self) -> float:
        """The score to exceed; NaN where that differs from entry to entry."""
        ...

    def serve(self, neighbour: Neighbour, score: float) -> bool: ...


class ConformalPolicy:
    name: PolicyName = "conformal"

    def __init__(self, calibrator: Calibrator) -> None:
        self.calibrator = calibrator

    @property
    def threshold(self) -> float:
        return self.calibrator.threshold

    def serve(self, neighbour: Neighbour, score: float) -> bool:
        return score > self.threshold


class ThresholdPolicy:
    """A fixed threshold on the score, for who knows the traffic."""

    name: PolicyName = "threshold"

    def __init__(self, threshold: float) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold: {threshold} is out of range; expected a score from 0 to 1")
        self._threshold = threshold

    @property
    def threshold(self) -> float:
        return self._threshold

    def serve(self, neighbour: Neighbour, score: float) -> bool:
        return score > self.threshold


class EntryPolicy:
    """vCache: each entry by its own observations of the similarity."""

    name: PolicyName = "vcache"

    def __init__(self, vcache: VCachePolicy) -> None:
        self.vcache = vcache

    @property
    def threshold(self) -> float:
        return math.nan

    def serve(self, neighbour: Neighbour, score: float) -> bool:
        return self.vcache.serve(neighbour.entry_id, neighbour.similarity)


class GuardedJudge:
    """The ``Judge`` seam. Texts are compared in pure Python, about half a millisecond for a new one."""

    def __init__(self, policy: Policy, score: Score | None = None) -> None:
        self.policy = policy
        self._score = score or shipped_score()
        self._turn = asyncio.Lock()

    @property
    def version(self) -> str:
        return f"g{GUARD_VERSION}-s{self._score.version}"

    def warm_up(self) -> None:
        """Read what is read on first use, the tables of every language: 0.8 s of the loop on the first lookup else."""
        for language in LANGUAGES:
            lexicon(language)
        self.opinion("How do I begin the next lesson?", "How can I start with the following lesson?", 0.9)

    async def judge(self, asked: str, neighbours: Sequence[Neighbour]) -> Verdict:
        """As ``decide``, but the loop is kept for one neighbour at a time, however many lookups judge at once."""
        opinions: list[Opinion] = []
        for neighbour in neighbours[:MOST_NEIGHBOURS]:
            async with self._turn:
                opinions.append(self.opinion(neighbour.text, asked, neighbour.similarity))
                # Running streams send their frames in between.
                await asyncio.sleep(0)
        return self._choose(asked, neighbours, opinions)

    def decide(self, asked: str, neighbours: Sequence[Neighbour]) -> Verdict:
        """The neighbour with the highest score that the policy serves, or the best one refused.

        Choosing among several makes a wrong choice likelier than judging one. Where two that the policy would serve
        ask different things (a guard keeps them apart), one of the two judgements is wrong, and nothing says which:
        neither is served, unless the text asked is one of them but for case and marks.
        """
        considered = neighbours[:MOST_NEIGHBOURS]
        opinions = [self.opinion(neighbour.text, asked, neighbour.similarity) for neighbour in considered]
        return self._choose(asked, considered, opinions)

    def _choose(self, asked: str, neighbours: Sequence[Neighbour], opinions: Sequence[Opinion]) -> Verdict:
        best: Verdict | None = None
        served: list[int] = []
        for index, opinion in enumerate(opinions):
            if opinion.guard is not None:
                verdict = Verdict(False, index, 0.0, "guard", opinion.guard)
            elif self.policy.serve(neighbours[index], opinion.score):
                verdict = Verdict(True, index, opinion.score, "served")
                served.append(index)
            else:
                verdict = Verdict(False, index, opinion.score, "score")
            if best is None or (verdict.serve, verdict.score) > (best.serve, best.score):
                best = verdict
        if best is None:
            return Verdict(False, -1, 0.0, "empty")
        if best.serve and len(served) > 1 and self._contested(asked, best.index, served, neighbours):
            return Verdict(False, best.index, best.score, "contested")
        return best

    def _contested(self, asked: str, chosen: int, served: Sequence[int], neighbours: Sequence[Neighbour]) -> bool:
        text = neighbours[chosen].text
        if compare(text, asked).identical:
            return False
        return any(refusal(compare(text, neighbours[rival].text)) is not None for rival in served if rival != chosen)

    def opinion(self, stored: str, asked: str, similarity: float) -> Opinion:
        """Never raises for odd text."""
        if len(stored) > LONGEST_TEXT or len(asked) > LONGEST_TEXT:
            return Opinion(0.0, "window", "text too long")
        pair = compare(stored, asked)
        refused = refusal(pair)
        if refused is not None:
            return Opinion(0.0, *refused)
        return Opinion(self._score(features(pair, similarity)))
