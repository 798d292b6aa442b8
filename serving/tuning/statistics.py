"""From outcomes to figures, and how sure one may be of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metering.errors import BadInput
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
    kept = [one for one in good if slo.request_met(one.ttft_seconds, one.per_token_seconds, one.e2e_seconds)]
    late = [outcome.sent_seconds - outcome.intended_seconds for outcome in outcomes]
    hits = [outcome for outcome in good if (outcome.cost.cache or "").startswith("HIT")]
    errors: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            errors[outcome.error] = errors.get(outcome.error, 0) + 1
    flops = _sum([outcome.cost.flops for outcome in good if outcome not in hits]) if len(hits) < len(good) else 0.0
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
        "goodput_ratio": len(kept) / len(outcomes),
        "goodput_per_second": len(kept) / seconds,
        **percentiles("ttft", [one.ttft_seconds for one in good if one.ttft_seconds is not None]),
        **percentiles("itl", np.concatenate([[0.0], *[one.token_gaps_seconds for one in good]])[1:]),
        **percentiles("e2e", [one.e2e_seconds for one in good]),
        "send_delay_p99_seconds": float(np.percentile(late, 99)),
        **_costs(good, output),
        "mfu_ratio": None if flops is None or peaks.flops is None else flops / (peaks.flops * seconds),
        "flops": flops,
        "cache_hit_ratio": len(hits) / len(good) if good else None,
        "prefix_cached_ratio": sum(one.cached_prompt_tokens for one in good) / prompt if prompt else None,
        "method": "+".join(methods) or None,
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
    """A point estimate with its bootstrap interval."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high, "level": self.level}


def bootstrap_ratio(
    ours: Sequence[float], base: Sequence[float], *, resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Mean of ``ours`` over mean of ``base``, percentile bootstrap (Efron 1979) over independent repeats.

    Raises:
        BadInput: no repeats, or a base that is not positive.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if a.size == 0 or b.size == 0 or not np.all(b > 0):
        raise BadInput("a ratio needs repeats on both sides, and a base above 0")
    random = np.random.default_rng(seed)
    ours_drawn = a[random.integers(0, a.size, (resamples, a.size))].mean(axis=1)
    drawn = ours_drawn / b[random.integers(0, b.size, (resamples, b.size))].mean(axis=1)
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    return Interval(float(a.mean() / b.mean()), float(low), float(high), level)
