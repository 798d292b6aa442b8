"""From a budget for wrong answers to a threshold on the score.

The promise has one denominator: wrong answers over answers *served*. Conformal risk control (Angelopoulos et al.,
arXiv 2208.02814) bounds the expectation of a loss that never grows with the threshold, from exchangeable labels:
lambda = inf{l : n/(n+1) R(l) + 1/(n+1) <= alpha}. The loss that is monotone here is "served and wrong" for every pair
*judged*, so its R is wrong over asked: at the same alpha it is the weaker promise, since fewer are served than asked.
Wrong over served is a ratio that can rise again with a stricter threshold, so that formula alone does not bound it.
The threshold therefore also has to pass a test of the ratio itself: Learn then Test (arXiv 2110.01052) by fixed
sequences. For a threshold l the pairs above it are a binomial sample of wrong over served, so the exact binomial tail
is a p-value for "wrong over served exceeds alpha"; a sequence starts at a strict threshold and goes on to looser ones
until a test fails. Several starts share the allowed error. With confidence 1 - delta over the labels, wrong over
served on exchangeable traffic is then at most alpha. The stricter of both thresholds is taken.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTHING = 1.0
"""A threshold that no score exceeds: scores are at most 1 and a score must be greater to be served."""
CONFIDENCE = 0.9
"""Of the promise, over the draw of the labels."""
_STARTS = (0.1, 0.25, 0.4, 0.55)
"""Share of the labels served where each sequence of tests starts; each gets a quarter of the error allowed."""
_STEPS = 100
"""Thresholds tested between all and none of the labels served."""
WILSON_Z = 1.959963984540054
"""Two-sided 95 %: the 0.975 quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Label:
    """One pair judged and then verified: would the stored answer have been right?"""

    score: float
    right: bool


def wilson(count: int, total: int, z: float = WILSON_Z) -> tuple[float, float]:
    """Wilson score interval of a proportion; (0, 1) without observations. Wilson (1927), JASA 22."""
    if total == 0:
        return 0.0, 1.0
    rate = count / total
    denominator = 1 + z * z / total
    centre = rate + z * z / (2 * total)
    spread = z * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    low, high = (centre - spread) / denominator, (centre + spread) / denominator
    return (0.0 if count == 0 else max(0.0, low)), (1.0 if count == total else min(1.0, high))


def binomial_tail(wrong: int, served: int, rate: float) -> float:
    """P(Binomial(served, rate) <= wrong): small where so few wrong ones are unlikely at that rate."""
    if served == 0:
        return 1.0
    if rate <= 0.0 or rate >= 1.0:
        return 1.0 if rate <= 0.0 or wrong >= served else 0.0
    term = served * math.log1p(-rate)
    total = math.exp(term)
    for k in range(1, wrong + 1):
        term += math.log((served - k + 1) / k) + math.log(rate) - math.log1p(-rate)
        total += math.exp(term)
    return min(1.0, total)


def conformal_threshold(labels: Sequence[Label], max_wrong: float) -> float:
    """inf{l : n/(n+1) R(l) + 1/(n+1) <= max_wrong}, R = wrong and served / judged.

    NOTHING with fewer than 1/max_wrong - 1 labels.
    """
    n = len(labels)
    if max_wrong <= 0.0 or n + 1 < 1.0 / max_wrong - 1e-9:
        return NOTHING
    allowed = math.floor(max_wrong * (n + 1) - 1 + 1e-9)
    wrong = sorted((label.score for label in labels if not label.right), reverse=True)
    return 0.0 if allowed >= len(wrong) else max(0.0, wrong[allowed])


def ratio_threshold(labels: Sequence[Label], max_wrong: float, confidence: float = CONFIDENCE) -> float:
    """The loosest threshold at which wrong over served passes the fixed-sequence test; NOTHING where none does."""
    if not labels or max_wrong <= 0.0:
        return NOTHING
    scores = np.sort(np.array([label.score for label in labels]))[::-1]
    bad = np.sort(np.array([label.score for label in labels if not label.right]))[::-1]
    error = (1.0 - confidence) / len(_STARTS)
    grid = np.unique(scores[np.minimum(np.arange(1, _STEPS + 1) * len(scores) // _STEPS, len(scores) - 1)])[::-1]
    best = NOTHING
    for start in _STARTS:
        strictest = float(scores[min(int(start * len(scores)), len(scores) - 1)])
        for threshold in grid[grid <= strictest]:
            served = int((scores > threshold).sum())
            wrong = int((bad > threshold).sum())
            if binomial_tail(wrong, served, max_wrong) > error:
                break
            best = min(best, float(threshold))
    return best


def threshold_for(labels: Sequence[Label], max_wrong: float, confidence: float = CONFIDENCE) -> float:
    """Serve where score > the result; the stricter of both promises."""
    if max_wrong >= 1.0:
        return 0.0
    return max(conformal_threshold(labels, max_wrong), ratio_threshold(labels, max_wrong, confidence))


def blended_threshold(live: Sequence[Label], shipped: Sequence[Label], max_wrong: float) -> float:
    """The loosest threshold at which the expected wrong over served, and its own spread, is within the budget.

    The expectation is that of a beta distribution: prior from the shipped labels above the same threshold, worth
    ``PRIOR_SERVED`` observations whatever their number, then the live ones; one standard deviation is added. It
    promises less than the exact test, which holds with 90 % confidence whatever the shipped labels are worth, and asks
    for fewer labels; live labels that speak against the shipped threshold count in full from the first.
    """
    if max_wrong >= 1.0:
        return 0.0
    thresholds = np.unique([0.0, *(label.score for label in live), *(label.score for label in shipped)])
    served, wrong = _above(live, thresholds)
    known, bad = _above(shipped, thresholds)
    # one wrong and one right more, so that no threshold rests on a handful without a mistake
    prior = (bad + 1) / (known + 2)
    expected = (wrong + PRIOR_SERVED * prior) / (served + PRIOR_SERVED)
    spread = np.sqrt(expected * (1 - expected) / (served + PRIOR_SERVED + 1))
    kept = thresholds[expected + spread <= max_wrong]
    return float(kept[0]) if len(kept) else NOTHING


PRIOR_SERVED = 50
"""Weight of the shipped labels beside the live ones, in served answers: at a budget of 2 % one mistake among the
first fifty labels of the traffic already tightens."""


def _above(labels: Sequence[Label], thresholds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(labels, wrong ones) with a greater score, for each threshold."""
    every = np.sort(np.array([label.score for label in labels], dtype=np.float64))
    wrong = np.sort(np.array([label.score for label in labels if not label.right], dtype=np.float64))
    return (
        len(every) - np.searchsorted(every, thresholds, side="right"),
        len(wrong) - np.searchsorted(wrong, thresholds, side="right"),
    )


@dataclass(frozen=True)
class Calibration:
    """Labels with where they come from."""

    labels: tuple[Label, ...]
    source: str
    on_your_traffic: bool

    @property
    def note(self) -> str:
        return "calibrated on your traffic" if self.on_your_traffic else "uncalibrated on your traffic"

    def as_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "on_your_traffic": self.on_your_traffic,
            "scores": [round(label.score, 5) for label in self.labels],
            "right": [int(label.right) for label in self.labels],
        }

    @classmethod
    def from_bytes(cls, content: bytes) -> Calibration:
        """Raises ValueError, as ``from_dict`` does."""
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "a number has too many digits, or it is nested too deeply, or not UTF-8")
            raise ValueError(f"calibration: not JSON ({reason})") from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Calibration:
        """Raises ValueError naming what is missing or out of range."""
        try:
            scores, right = data["scores"], data["right"]
        except (KeyError, TypeError):
            raise ValueError("calibration: expected an object with lists `scores` and `right`") from None
        if not isinstance(scores, list) or not isinstance(right, list) or len(scores) != len(right):
            raise ValueError("calibration: `scores` and `right` must be lists of the same length")
        for position, score in enumerate(scores):
            if isinstance(score, bool) or not isinstance(score, int | float) or not 0.0 <= score <= 1.0:
                raise ValueError(f"calibration: scores[{position}] is not a number from 0 to 1")
        labels = tuple(Label(float(score), bool(good)) for score, good in zip(scores, right, strict=True))
        return cls(labels, str(data.get("source", "file")), bool(data.get("on_your_traffic", True)))


def shipped_calibration() -> Calibration:
    """Held-out scores of the training families. Uncalibrated on your traffic."""
    text = resources.files("cache").joinpath("data", "calibration.json").read_text("utf-8")
    return Calibration.from_dict(json.loads(text))


class Calibrator:
    """The live threshold. Starts from the shipped labels and passes to those of the traffic as they come.

    Until the traffic has ``least_live`` labels, and enough for a threshold at this budget, the shipped threshold
    holds, or a stricter one that the live labels ask for. It tightens at once, without waiting for a re-fit, when the
    lower Wilson bound of wrong over served among the recent served labels exceeds the budget.

    Args:
        refit_every: live labels between two fits; a wrong one is looked at immediately.
        window: live labels kept, newest last; older traffic is forgotten.
        prior: what labels of the traffic are blended with; without it the exact test alone decides.
    """

    def __init__(
        self,
        shipped: Calibration,
        max_wrong: float,
        *,
        least_live: int = 200,
        refit_every: int = 20,
        window: int = 5000,
        confidence: float = CONFIDENCE,
        prior: Calibration | None = None,
    ) -> None:
        if not 0.0 <= max_wrong <= 1.0:
            raise ValueError(f"max_wrong: {max_wrong} is not a share; expected a number from 0 to 1, as 0.02")
        self.max_wrong, self.shipped = max_wrong, shipped
        self._least, self._every, self._confidence = least_live, refit_every, confidence
        self._live: deque[Label] = deque(maxlen=window)
        self._served: deque[bool] = deque(maxlen=500)
        # what an older threshold served says nothing about whether the one now is strict enough
        self._since_tightened: deque[bool] = deque(maxlen=500)
        self._since_fit = 0
        self.differing_allowed: Callable[[float], float] = lambda budget: budget
        """A budget for wrong answers as a budget for labels that say so (see ``cache.comparator``)."""
        self._prior = prior.labels if prior is not None else () if shipped.on_your_traffic else shipped.labels
        self._start = (
            self._threshold(shipped.labels)
            if shipped.on_your_traffic
            else threshold_for(shipped.labels, max_wrong, confidence)
        )
        self.threshold = self._start
        """Serve where score > threshold."""
        self.tightened = 0
        """Times that the live rate left the budget."""

    @property
    def live_labels(self) -> tuple[Label, ...]:
        return tuple(self._live)

    @property
    def calibrated(self) -> bool:
        """True once the threshold rests on the traffic's own labels."""
        return len(self._live) >= max(self._least, math.ceil(1.0 / self.max_wrong) - 1 if self.max_wrong else 0)

    @property
    def note(self) -> str:
        return "calibrated on your traffic" if self.calibrated else self.shipped.note

    def wrong_of_served(self) -> tuple[int, int]:
        """(wrong, labelled) among the recent answers that were served, whatever threshold served them."""
        return sum(not right for right in self._served), len(self._served)

    def observe(self, score: float, right: bool, *, served: bool | None = None) -> None:
        """One verified pair. ``served`` None: judged by the threshold now."""
        self._live.append(Label(score, right))
        if served if served is not None else score > self.threshold:
            self._served.append(right)
            self._since_tightened.append(right)
        self._since_fit += 1
        if self._since_fit >= self._every:
            self._fit()
        if not right:
            self._tighten()

    def _threshold(self, labels: Sequence[Label]) -> float:
        """From labels of the traffic: the looser of the exact test's and the blend's."""
        allowed = self.differing_allowed(self.max_wrong)
        exact = threshold_for(labels, allowed, self._confidence)
        return min(exact, blended_threshold(labels, self._prior, allowed)) if self._prior else exact

    def _fit(self) -> None:
        self._since_fit = 0
        self.threshold = self._threshold(self.live_labels) if self.calibrated else self._start

    def _tighten(self) -> None:
        allowed = self.differing_allowed(self.max_wrong)
        wrong = sum(not right for right in self._since_tightened)
        if wilson(wrong, len(self._since_tightened))[0] <= allowed:
            return
        self.tightened += 1
        above = sorted((label for label in self._live if label.score > self.threshold), key=lambda label: label.score)
        threshold = self.threshold
        wrong = sum(not label.right for label in above)
        for place, label in enumerate(above):
            if wrong <= allowed * (len(above) - place):
                break
            threshold = label.score
            wrong -= not label.right
        self.threshold = self._start = max(self._start, threshold)
        self._since_tightened.clear()

    def forget(self) -> None:
        """Live labels go: the same ones are about to come from somewhere more complete."""
        self._live.clear()
        self._served.clear()
        self._since_tightened.clear()
        self._fit()
