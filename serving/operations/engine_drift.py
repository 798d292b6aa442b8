"""Drift of an engine: its MFU and joules a token, against its own reference and against a fitted engine model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from metering.booking import EngineWindow
from metering.books import ClosedWindow
from serving.operations.drift import Finding, Limits, Window, against_model, compare, tell
from serving.operations.events import Kind
from serving.tuning.engine_model import EngineModel

Load = tuple[str, int]
"""Model, and the octave of its mean batch."""

NANO = 1e9
MODEL_TOLERANCE = 0.25
"""Relative change that is told against a fitted model: its own error and that of a window's mean batch are in it."""


@dataclass(slots=True)
class _Figures:
    mfu: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    expected_mfu: list[float] = field(default_factory=list)
    expected_joules: list[float] = field(default_factory=list)

    @property
    def size(self) -> int:
        return max(len(self.mfu), len(self.joules))


@dataclass(slots=True)
class EngineWatch:
    """Gathers ``size`` metering windows that did work, by model and octave of the batch; the first lot of each is its
    reference, so that a fuller hour, whose MFU is higher for that alone, is not taken for a better engine."""

    record: Callable[[Kind, str, str], object]
    """Takes an event's kind, text and model."""
    measured: Callable[[Finding], None] = lambda finding: None
    size: int = 300
    limits: Limits = field(default_factory=Limits)
    fitted: EngineModel | None = None
    _gathered: dict[Load, _Figures] = field(default_factory=dict)
    _reference: dict[Load, Window] = field(default_factory=dict)

    def closed(self, window: ClosedWindow) -> None:
        for engine in window.engines:
            tokens = engine.tokens_prefill + engine.tokens_decode
            if tokens <= 0 or engine.busy_seconds <= 0 or engine.mfu_ratio is None:
                continue
            load = engine.model, round(math.log2(max(1.0, engine.mean_batch)))
            figures = self._gathered.setdefault(load, _Figures())
            # while it worked: how long it had nothing to do is traffic's doing
            mfu = engine.mfu_ratio * window.window.seconds / engine.busy_seconds
            figures.mfu.append(mfu)
            joules = work_joules(window, engine.model)
            if joules is not None:
                figures.joules.append(joules / tokens)
            self._expect(figures, engine, tokens, mfu)
            if figures.size >= self.size:
                self._conclude(load, self._gathered.pop(load))

    def _expect(self, figures: _Figures, engine: EngineWindow, tokens: float, mfu: float) -> None:
        if self.fitted is None or self.fitted.model != engine.model or engine.engines != 1:
            return
        seconds = expected_seconds(self.fitted, engine)
        if seconds is None:
            return
        # the same work in the time that the model says: its MFU is to the measured one as the times are
        figures.expected_mfu.append(mfu * engine.busy_seconds / seconds)
        if self.fitted.power is not None:
            busy, _ = self.fitted.power.joules(seconds, seconds)
            figures.expected_joules.append(busy / tokens)

    def _conclude(self, load: Load, figures: _Figures) -> None:
        window = Window((), tuple(figures.mfu), tuple(figures.joules))
        findings: list[Finding] = []
        if load in self._reference:
            findings += compare(self._reference[load], window, self.limits)
        else:
            self._reference[load] = window
        limits = replace(self.limits, relative=MODEL_TOLERANCE)
        for what, expected, measured in (
            ("MFU against the fitted model", figures.expected_mfu, figures.mfu),
            ("joules per token against the fitted model", figures.expected_joules, figures.joules),
        ):
            if len(expected) >= self.limits.least and measured:
                findings.append(against_model(what, sum(expected) / len(expected), measured, limits))
        model = load[0]
        tell(
            [replace(finding, model=model) for finding in findings],
            lambda kind, text, _: self.record(kind, text, model),
            self.measured,
        )


def work_joules(window: ClosedWindow, model: str) -> float | None:
    """Of a model's work at the accelerator in a window; None in a gap."""
    if not any(close.energy_nanojoules is not None for close in window.components):
        return None
    lines = [line for (name, _), line in window.lines.items() if name == model]
    nanojoules = sum(
        amounts.energy_nanojoules
        for line in lines
        for boundary, amounts in line.work.items()
        if boundary.value == "accelerator"
    )
    return nanojoules / NANO if nanojoules else None


def expected_seconds(model: EngineModel, engine: EngineWindow) -> float | None:
    """Time of a window's work by the fitted model. Each step's planes are linear in what it holds, so a window's sums
    do; the pairs of attention are what its FLOPs leave after the tokens. None without counts of FLOPs."""
    if model.flops is None or engine.mean_batch <= 0:
        return None
    tokens = engine.tokens_prefill + engine.tokens_decode
    rows = engine.tokens_decode
    pairs = max(0.0, engine.flops - model.flops.per_token * tokens - model.flops.per_row * rows)
    pairs = pairs / model.flops.per_pair if model.flops.per_pair > 0 else 0.0
    steps = max(1.0, engine.tokens_decode / engine.mean_batch)
    decoding = engine.tokens_decode / tokens
    return max(
        plane.fixed * steps
        + plane.seconds(engine.tokens_decode, engine.tokens_prefill, pairs * decoding, pairs * (1 - decoding))
        - plane.fixed
        for plane in model.planes
    )
