"""Drift: traffic and engine of a window against those of a reference window.

A finding needs both: more change than chance explains (a statistic beyond its threshold) and enough of it to matter
(a floor on the effect), for with many requests any difference is significant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serving.operations.statistics import (
    ks,
    ks_threshold,
    mean_shift,
    mean_z,
    moved,
    proportion_z,
    psi,
    psi_threshold,
    quantile_edges,
)

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seen:
    """What drift looks at of one ended request."""

    prompt_tokens: int
    answer_tokens: int
    refused: bool = False
    """The model would not answer, as its engine says it: a `refusal`, or finish_reason ``content_filter``."""
    truncated: bool = False
    """finish_reason ``length``."""
    hit: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """Requests of a stretch of time, and the closed metering windows that fell in it."""

    requests: tuple[Seen, ...]
    mfu_ratios: tuple[float, ...] = ()
    joules_per_token: tuple[float, ...] = ()
    embeddings: tuple[Vector, ...] = ()
    """Of prompts, where something embeds them."""
    encoder: str = ""
    """Whose vectors they are: those of two encoders cannot be compared."""
    verified_wrong: tuple[bool, ...] = ()
    """Semantic hits that were verified, and whether they were wrong."""


@dataclass(frozen=True, slots=True)
class Limits:
    z: float = 3.29
    """Two-sided one in a thousand of a comparison; two windows in a row then err once in some millions."""
    psi: float = 0.25
    """Siddiqi's border to a large change."""
    ks: float = 0.1
    """Smallest distance of distributions that is told."""
    moved: float = 0.1
    """Smallest move of a length that is told, over its mean: one token more in each fifth prompt is beyond chance, and
    of no consequence."""
    points: float = 0.05
    """Smallest change of a rate that is told."""
    wrong_points: float = 0.02
    """The same of the rate of false hits, whose budgets are of a few percent."""
    relative: float = 0.15
    """Smallest relative change of a mean that is told."""
    shift: float = 0.2
    """Smallest move of the embeddings' mean that is told, in units of one sample's spread."""
    least: int = 50
    """Fewer values in either window: not compared."""


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    statistic: str
    value: float
    threshold: float
    before: float
    """Mean or rate of the reference."""
    after: float
    drifted: bool
    model: str | None = None
    """None where it concerns all of them."""

    @property
    def text(self) -> str:
        of = "" if self.model is None else f", {self.model}"
        return (
            f"{self.what}{of}: {self.before:.4g} -> {self.after:.4g} "
            f"({self.statistic} {self.value:.3g}, threshold {self.threshold:.3g})"
        )


def compare(reference: Window, present: Window, limits: Limits = Limits()) -> list[Finding]:
    """Everything that both windows have enough of, drifted or not."""
    out: list[Finding] = []
    before, after = reference.requests, present.requests
    if min(len(before), len(after)) >= limits.least:
        lengths: tuple[tuple[str, Callable[[Seen], int]], ...] = (
            ("prompt length", lambda seen: seen.prompt_tokens),
            ("answer length", lambda seen: seen.answer_tokens),
        )
        for what, length in lengths:
            out += _distribution(what, [length(seen) for seen in before], [length(seen) for seen in after], limits)
        rates: tuple[tuple[str, Callable[[Seen], bool]], ...] = (
            ("refusal rate", lambda seen: seen.refused),
            ("truncation rate", lambda seen: seen.truncated),
            ("hit ratio", lambda seen: seen.hit),
        )
        for what, holds in rates:
            out.append(_rate(what, [holds(seen) for seen in before], [holds(seen) for seen in after], limits))
    if min(len(reference.verified_wrong), len(present.verified_wrong)) >= limits.least:
        wrong = replace(limits, points=limits.wrong_points)
        out.append(_rate("false hits", reference.verified_wrong, present.verified_wrong, wrong))
    if min(len(reference.embeddings), len(present.embeddings)) >= limits.least:
        out.append(_embeddings(reference.embeddings, present.embeddings, limits))
    for what, old, new in (
        ("MFU", reference.mfu_ratios, present.mfu_ratios),
        ("joules per token", reference.joules_per_token, present.joules_per_token),
    ):
        if min(len(old), len(new)) >= limits.least:
            out.append(_mean(what, old, new, limits))
    return out


def against_model(what: str, expected: float, measured: Sequence[float], limits: Limits = Limits()) -> Finding:
    """Measured values against what the fitted engine model says; raises ``ValueError`` for no values."""
    if not measured or expected <= 0:
        raise ValueError("needs measured values and a positive expectation")
    mean = math.fsum(measured) / len(measured)
    change = abs(mean / expected - 1)
    return Finding(what, "relative change", change, limits.relative, expected, mean, change > limits.relative)


def _distribution(what: str, old: Sequence[int], new: Sequence[int], limits: Limits) -> list[Finding]:
    middle = math.fsum(old) / len(old), math.fsum(new) / len(new)
    enough = moved(old, new) > limits.moved
    edges = quantile_edges(old)
    shifted, shift_limit = psi(old, new, edges), psi_threshold(len(old), len(new), len(edges) + 1, limits.z)
    alpha = math.erfc(limits.z / math.sqrt(2))
    apart, apart_limit = ks(old, new), ks_threshold(len(old), len(new), alpha)
    most_shift, most_apart = max(limits.psi, shift_limit), max(limits.ks, apart_limit)
    return [
        Finding(what, "PSI", shifted, most_shift, *middle, enough and shifted > most_shift),
        Finding(what, "KS", apart, most_apart, *middle, enough and apart > most_apart),
    ]


def _rate(what: str, old: Sequence[bool], new: Sequence[bool], limits: Limits) -> Finding:
    z = proportion_z(sum(old), len(old), sum(new), len(new))
    before, after = sum(old) / len(old), sum(new) / len(new)
    return Finding(what, "z", z, limits.z, before, after, abs(z) > limits.z and abs(after - before) > limits.points)


def _embeddings(old: Sequence[Vector], new: Sequence[Vector], limits: Limits) -> Finding:
    statistic, threshold, shift = mean_shift(np.stack(old), np.stack(new), limits.z)
    drifted = statistic > threshold and shift > limits.shift
    return Finding("prompt embeddings", "mean shift", statistic, threshold, 0.0, shift, drifted)


def _mean(what: str, old: Sequence[float], new: Sequence[float], limits: Limits) -> Finding:
    z = mean_z(old, new)
    before, after = math.fsum(old) / len(old), math.fsum(new) / len(new)
    enough = abs(after - before) > limits.relative * abs(before)
    return Finding(what, "z", z, limits.z, before, after, abs(z) > limits.z and enough)
