"""Requests that kept the promise themselves: what goodput counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.tuning.outcome import Outcome
from serving.tuning.slo import Bound, Slo


def goodput(outcomes: Sequence[Outcome], slo: Slo, seconds: float) -> dict[str, float]:
    """Of a run of so many seconds. A failed request kept nothing."""
    kept = sum(outcome.error is None and request_kept(outcome, slo) for outcome in outcomes)
    return {"goodput_ratio": kept / len(outcomes), "goodput_per_second": kept / seconds}


def request_kept(outcome: Outcome, slo: Slo) -> bool:
    """Whether a complete answer kept every bound. ``itl`` at a percentile is that of its own token gaps, as the run's
    is of all answers': a mean hides the pauses that a reader sees.
    """
    return all(_seen(outcome, bound) <= bound.seconds for bound in slo.bounds)


def _seen(outcome: Outcome, bound: Bound) -> float:
    if bound.metric == "e2e":
        return outcome.e2e_seconds
    if bound.metric == "ttft":
        return float("inf") if outcome.ttft_seconds is None else outcome.ttft_seconds
    gaps = outcome.token_gaps_seconds
    # an answer of one token, or in one frame, has no gaps to wait for
    return float(np.percentile(gaps, bound.percentile)) if gaps else 0.0
