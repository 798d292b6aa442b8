"""From outcomes to figures, and how sure one may be of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metering.errors import BadInput
from serving.tuning.goodput import goodput
from serving.tuning.outcome import Outcome
from serving.tuning.slo import PERCENTILES, Slo

Values = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DevicePeaks:
    """Of all that the engine runs on; None: unknown, and then no MFU."""

    flops: float | None = None


def percentiles(name: str, values: Values) -> dict[str, float | None]:
    """``{name_p50_seconds, ...}``; None without values."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return {f"{name}_p{percentile}_seconds": None for percentile in PERCENTILES}
    found = np.percentile(array, PERCENTILES)
    return {f"{name}_p{p}_seconds": float(value) for p, value in zip(PERCENTILES, found, strict=True)}


def summarise(outcomes: Sequence[Outcome], slo: Slo | None = None, peaks: DevicePeaks | None = None) -> dict[str, Any]:
    """JSON-ready figures of a run.

    Rates are over the time from the first intended sending to the last answer. Percentiles are over complete
    answers; goodput counts only those that kept every bound of the SLO, and a failed request never does.

    Raises:
        BadInput: no outcomes.
    """
    if not outcomes:
        raise BadInput("no requests were sent: nothing to summarise")
    slo, peaks = slo or Slo(), peaks or DevicePeaks()
    good = [outcome for outcome in outcomes if outcome.error is None]
    start = min(outcome.intended_seconds for outcome in outcomes)
    seconds = max(max(outcome.ended_seconds for outcome in outcomes) - start, 1e-9)
    output = sum(outcome.output_tokens for outcome in good)
    prompt = sum(outcome.prompt_tokens for outcome in good)
    late = [outcome.sent_seconds - outcome.intended_seconds for outcome in outcomes]
    worked = [outcome for outcome in good if not outcome.cost.hit]
    errors: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            errors[outcome.error] = errors.get(outcome.error, 0) + 1
    flops = _sum([outcome.cost.flops for outcome in worked]) if worked or not good else 0.0
    methods = sorted({outcome.cost.method for outcome in good if outcome.cost.method})
    return {
        "requests": len(outcomes),
        "completed": len(good),
        "errors": errors,
        "seconds": seconds,
        "requests_per_second": len(good) / seconds,
        "output_tokens": output,
        "prompt_tokens": prompt,
        "output_tokens_per_second": output / seconds,
        "total_tokens_per_second": (output + prompt) / seconds,
        "slo": str(slo),
        **goodput(outcomes, slo, seconds),
        **percentiles("ttft", [one.ttft_seconds for one in good if one.ttft_seconds is not None]),
        **percentiles("itl", np.concatenate([[0.0], *[one.token_gaps_seconds for one in good]])[1:]),
        **percentiles("e2e", [one.e2e_seconds for one in good]),
        "send_delay_p99_seconds": float(np.percentile(late, 99)),
        **_costs(good, output),
        "mfu_ratio": None if flops is None or peaks.flops is None else flops / (peaks.flops * seconds),
        "flops": flops,
        "cache_hit_ratio": 1 - len(worked) / len(good) if good else None,
        "prefix_cached_ratio": sum(one.cached_prompt_tokens for one in good) / prompt if prompt else None,
        "method": "+".join(methods) or None,
        "provisional_receipts": sum(outcome.cost.status == "provisional" for outcome in good),
    }


def _costs(good: Sequence[Outcome], output: int) -> dict[str, float | None]:
    joules = _sum([one.cost.joules for one in good])
    grams = _sum([one.cost.operational_grams for one in good])
    embodied = _sum([one.cost.embodied_grams for one in good])
    price = _sum([one.cost.price for one in good])
    priced = {} if price is None else {"cost": price, "cost_per_1k_output_tokens": _per_1k(price, output)}
    return {
        "joules": joules,
        "operational_grams": grams,
        "embodied_grams": embodied,
        "joules_per_output_token": None if joules is None or not output else joules / output,
        "grams_per_1k_output_tokens": None if grams is None else _per_1k(grams, output),
        **priced,
    }


def _per_1k(amount: float, tokens: int) -> float | None:
    return 1000 * amount / tokens if tokens else None


def _sum(values: Sequence[float | None]) -> float | None:
    """None where any is unknown: a sum of some would read as the whole."""
    known = [value for value in values if value is not None]
    return float(sum(known)) if known and len(known) == len(values) else None


@dataclass(frozen=True, slots=True)
class Interval:
    """A point estimate with its interval; of a single pair there is none."""

    value: float
    low: float | None
    high: float | None
    pairs: int
    level: float = 0.95

    def as_dict(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high, "level": self.level, "pairs": self.pairs}

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3g} (one pair of runs: no interval)"
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g}, {self.level:.0%})"


def paired_ratio(ours: Sequence[float], base: Sequence[float], *, level: float = 0.95) -> Interval:
    """``ours`` over ``base``, geometric mean over pairs of runs that followed each other, with Student's t interval of
    the logarithms at n - 1 degrees of freedom: a percentile bootstrap of three runs, which takes what it saw for all
    there is, holds the true ratio in four cases of five when it says 95 %.

    Raises:
        BadInput: no pairs, halves of unlike number, or a value that is not positive.
    """
    if len(ours) == 0 or len(ours) != len(base) or min(*ours, *base) <= 0:
        raise BadInput("a ratio needs pairs of runs, and values above 0")
    logs = np.log(np.asarray(ours, dtype=np.float64) / np.asarray(base, dtype=np.float64))
    centre, pairs = float(logs.mean()), len(logs)
    if pairs < 2:
        return Interval(math.exp(centre), None, None, pairs, level)
    from scipy.special import stdtrit

    half = float(stdtrit(pairs - 1, 0.5 + level / 2)) * float(logs.std(ddof=1)) / math.sqrt(pairs)
    value, low, high = (math.exp(log) for log in (centre, centre - half, centre + half))
    return Interval(value, low, high, pairs, level)
