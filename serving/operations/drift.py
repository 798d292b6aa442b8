"""Drift: traffic and engine of a window against those of a reference window.

A finding needs both: more change than chance explains (a statistic beyond its threshold) and enough of it to matter
(a floor on the effect), for with many requests any difference is significant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serving.operations.events import Kind
from serving.operations.statistics import ks, ks_threshold, mean_z, proportion_z, psi, psi_threshold, quantile_edges


@dataclass(frozen=True, slots=True)
class Seen:
    """What drift looks at of one ended request."""

    prompt_tokens: int
    answer_tokens: int
    refused: bool = False
    """Ended with an error of the client's making or of a limit (4xx)."""
    truncated: bool = False
    """finish_reason ``length``."""
    hit: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """Requests of a stretch of time, and the closed metering windows that fell in it."""

    requests: tuple[Seen, ...]
    mfu_ratios: tuple[float, ...] = ()
    joules_per_token: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    z: float = 3.29
    """Two-sided one in a thousand: eight comparisons an hour then err about once in five days."""
    psi: float = 0.25
    """Siddiqi's border to a large change."""
    ks: float = 0.1
    """Smallest distance of distributions that is told."""
    points: float = 0.05
    """Smallest change of a rate that is told."""
    relative: float = 0.15
    """Smallest relative change of a mean that is told."""
    least: int = 50
    """Fewer values in either window: not compared."""


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    statistic: str
    value: float
    threshold: float
    before: float
    """Median, rate or mean of the reference."""
    after: float
    drifted: bool

    @property
    def text(self) -> str:
        return (
            f"{self.what}: {self.before:.4g} -> {self.after:.4g} "
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


def _median(sample: Sequence[float]) -> float:
    ordered, half = sorted(sample), len(sample) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _distribution(what: str, old: Sequence[int], new: Sequence[int], limits: Limits) -> list[Finding]:
    middle = _median(old), _median(new)
    edges = quantile_edges(old)
    shifted, shift_limit = psi(old, new, edges), psi_threshold(len(old), len(new), len(edges) + 1, limits.z)
    alpha = math.erfc(limits.z / math.sqrt(2))
    apart, apart_limit = ks(old, new), ks_threshold(len(old), len(new), alpha)
    most_shift, most_apart = max(limits.psi, shift_limit), max(limits.ks, apart_limit)
    return [
        Finding(what, "PSI", shifted, most_shift, *middle, shifted > most_shift),
        Finding(what, "KS", apart, most_apart, *middle, apart > most_apart),
    ]


def _rate(what: str, old: Sequence[bool], new: Sequence[bool], limits: Limits) -> Finding:
    z = proportion_z(sum(old), len(old), sum(new), len(new))
    before, after = sum(old) / len(old), sum(new) / len(new)
    return Finding(what, "z", z, limits.z, before, after, abs(z) > limits.z and abs(after - before) > limits.points)


def _mean(what: str, old: Sequence[float], new: Sequence[float], limits: Limits) -> Finding:
    z = mean_z(old, new)
    before, after = math.fsum(old) / len(old), math.fsum(new) / len(new)
    enough = abs(after - before) > limits.relative * abs(before)
    return Finding(what, "z", z, limits.z, before, after, abs(z) > limits.z and enough)


@dataclass(slots=True)
class DriftWatch:
    """Fills windows of ``size`` requests; the first is the reference until ``rebase``. Tells what moved, once a window.

    ``record`` takes an event's kind and text (``EventLog.record``).
    """

    record: Callable[[Kind, str], object]
    size: int = 500
    limits: Limits = Limits()
    reference: Window | None = None
    findings: list[Finding] = field(default_factory=list)
    """Of the last full window."""
    _requests: list[Seen] = field(default_factory=list)
    _mfu: list[float] = field(default_factory=list)
    _joules: list[float] = field(default_factory=list)

    def metered(self, mfu_ratio: float | None, joules_per_token: float | None) -> None:
        """Figures of a closed metering window that did work; what is unknown is left out."""
        if mfu_ratio is not None:
            self._mfu.append(mfu_ratio)
        if joules_per_token is not None:
            self._joules.append(joules_per_token)

    def ended(self, seen: Seen) -> None:
        self._requests.append(seen)
        if len(self._requests) < self.size:
            return
        window = Window(tuple(self._requests), tuple(self._mfu), tuple(self._joules))
        self._requests, self._mfu, self._joules = [], [], []
        if self.reference is None:
            self.reference = window
            return
        self.findings = compare(self.reference, window, self.limits)
        for finding in self.findings:
            if finding.drifted:
                self.record("drift", finding.text)

    def rebase(self) -> None:
        """The next full window becomes the reference: after a change that was meant."""
        self.reference, self.findings = None, []
        self._requests, self._mfu, self._joules = [], [], []
