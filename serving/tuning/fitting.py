"""Fitting an engine model: steps as the clients of measured runs saw them, then non-negative least squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from metering.errors import BadInput
from serving.tuning.engine_model import FitQuality, Plane
from serving.tuning.outcome import Outcome
from serving.tuning.step_log import StepRecord

_FEATURES = 4
_LEAST_RECORDS = 20
_ROUNDS = 8
_HUBER = 0.3
"""Relative residual above which a step counts less: on a shared machine some steps are simply interrupted."""


def records_of(outcomes: Sequence[Outcome]) -> list[StepRecord]:
    """One record for each token gap of each answer: who else was decoding then, and whose prompt was computed.

    A prompt is taken to be computed in the step before its first token. The queue is outside: only time between
    tokens is looked at. Exact where each frame is one token.
    """
    good = [one for one in outcomes if one.error is None and one.first_token_seconds is not None and one.output_tokens]
    # a frame with several tokens is not a step
    good = [one for one in good if len(one.token_gaps_seconds) >= 0.9 * (one.output_tokens - 1)]
    if not good:
        return []
    first = np.array([one.first_token_seconds for one in good], dtype=np.float64)
    last = first + np.array([sum(one.token_gaps_seconds) for one in good])
    prompt = np.array([one.prompt_tokens - one.cached_prompt_tokens for one in good], dtype=np.float64)
    whole = np.array([one.prompt_tokens for one in good], dtype=np.float64)
    rate = np.array([len(one.token_gaps_seconds) for one in good]) / np.maximum(last - first, 1e-9)
    by_first, by_last = np.argsort(first), np.argsort(last)
    firsts, lasts = first[by_first], last[by_last]

    def sums(values: npt.NDArray[np.float64], order: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        return np.concatenate([[0.0], np.cumsum(values[order])])

    offset = whole - first * rate
    started = [sums(values, by_first) for values in (offset, rate)]
    ended = [sums(values, by_last) for values in (offset, rate)]
    prompts = sums(prompt, by_first)
    out: list[StepRecord] = []
    for one in good:
        ends = one.first_token_seconds + np.cumsum(one.token_gaps_seconds)
        gaps = np.asarray(one.token_gaps_seconds)
        starts = ends - gaps
        # frames of one step leave a little apart: look at the middle of the gap
        middle = starts + gaps / 2
        before = np.searchsorted(firsts, middle, side="right")
        gone = np.searchsorted(lasts, middle, side="right")
        context = (started[0][before] - ended[0][gone]) + middle * (started[1][before] - ended[1][gone])
        arrived = prompts[np.searchsorted(firsts, ends + gaps / 2)] - prompts[before]
        for batch, read, computed, gap in zip(before - gone, context, arrived, gaps, strict=True):
            if gap > 0 and batch > 0:
                out.append(StepRecord(float(batch), float(computed), float(max(read, batch)), float(gap)))
    return out


def fit_plane(records: Sequence[StepRecord], *, seed: int = 0, source: str = "") -> tuple[Plane, FitQuality]:
    """Non-negative least squares on relative residuals, re-weighted for outliers (Huber 1964); a fifth of the
    records is held out for the error that is stated, then all are used.

    Raises:
        BadInput: too few records, or records that never vary.
    """
    usable = [record for record in records if record.seconds > 0 and record.steps > 0]
    if len(usable) < _LEAST_RECORDS:
        raise BadInput(f"a fit needs at least {_LEAST_RECORDS} steps, got {len(usable)}: run a longer load")
    features = np.array([[r.steps, r.sequence_steps, r.prompt_tokens, r.context_tokens] for r in usable])
    seconds = np.array([r.seconds for r in usable])
    order = np.random.default_rng(seed).permutation(len(usable))
    held, kept = order[: len(order) // 5], order[len(order) // 5 :]
    trial = _solve(features[kept], seconds[kept])
    held_error = np.abs(features[held] @ trial / seconds[held] - 1)
    found = _solve(features, seconds)
    error = np.abs(features @ found / seconds - 1)
    if found[0] + found[1] <= 0:
        raise BadInput("the steps do not vary enough to fit: run loads at several batch sizes")
    quality = FitQuality(
        len(usable), float(np.median(error)), float(np.percentile(error, 95)), float(np.median(held_error)), source
    )
    return Plane(*(float(value) for value in found)), quality


def _solve(features: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    relative = features / seconds[:, None]
    scale = np.maximum(relative.mean(axis=0), 1e-12)
    weights = np.ones(len(seconds))
    found = np.zeros(_FEATURES)
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        found, _ = nnls(relative / scale * root[:, None], root)
        residual = np.abs(relative / scale @ found - 1)
        weights = np.minimum(1.0, _HUBER / np.maximum(residual, 1e-9))
    solution: npt.NDArray[np.float64] = found / scale
    return solution
