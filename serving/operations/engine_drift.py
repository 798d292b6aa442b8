"""Drift of an engine: its MFU and joules a token, against its own reference and against a fitted engine model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from metering.booking import EngineWindow
from metering.books import ClosedWindow
from serving.operations.drift import Finding, Limits, Window, against_model, compare, tell
from serving.operations.drift_references import References
from serving.operations.events import Kind
from serving.tuning.engine_model import EngineModel

Load = tuple[str, int]
"""Model, and the octave of its mean batch."""

NANO = 1e9
MODEL_TOLERANCE = 0.25
"""Relative change that is told against a fitted model: its own error and that of a window's mean batch are in it."""


@dataclass(slots=True)
class _Figures:
    began_seconds: float
    """Unix time."""
    mfu: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    expected_mfu: list[float] = field(default_factory=list)
    expected_joules: list[float] = field(default_factory=list)

    @property
    def size(self) -> int:
        return max(len(self.mfu), len(self.joules))


@dataclass(slots=True)
class EngineWatch:
    """Gathers ``size`` metering windows that did work, by model and octave of the batch, so that a fuller hour, whose
    MFU is higher for that alone, is not taken for a better engine; the first lot of each is its reference.

    What has moved is an event when the next lot has moved the same way: minutes that a neighbour on the machine took
    are no drift.
    """

    record: Callable[[Kind, str, str], object]
    """Takes an event's kind, text and model."""
    measured: Callable[[Finding], None] = lambda finding: None
    size: int = 300
    limits: Limits = field(default_factory=Limits)
    fitted: EngineModel | None = None
    references: References = field(default_factory=References)
    later: Callable[[Callable[[], None]], object] = lambda work: work()
    """Where comparing is done: it reads a file and asks the cluster's store."""
    wall: Callable[[], float] = time.time
    _gathered: dict[Load, _Figures] = field(default_factory=dict)
    _moved: dict[tuple[Load, str], bool] = field(default_factory=dict)
    """What the last lot found to have moved, and whether upwards."""

    def closed(self, window: ClosedWindow) -> None:
        for engine in window.engines:
            tokens = engine.tokens_prefill + engine.tokens_decode
            if tokens <= 0 or engine.busy_seconds <= 0 or engine.mfu_ratio is None:
                continue
            load = engine.model, round(math.log2(max(1.0, engine.mean_batch)))
            figures = self._gathered.get(load)
            if figures is None:
                figures = self._gathered[load] = _Figures(self.wall())
            # while it worked: how long it had nothing to do is traffic's doing
            mfu = engine.mfu_ratio * window.window.seconds / engine.busy_seconds
            figures.mfu.append(mfu)
            joules = work_joules(window, engine.model)
            if joules is not None:
                figures.joules.append(joules / tokens)
            self._expect(figures, engine, tokens, mfu)
            if figures.size >= self.size:
                full = self._gathered.pop(load)
                self.later(partial(self._conclude, load, full))

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
        reference = self.references.settle(load[0], figures.began_seconds, window, of=f"batch octave {load[1]}")
        if reference is not None:
            findings += compare(reference, window, self.limits)
        else:
            self._moved = {key: upwards for key, upwards in self._moved.items() if key[0] != load}
        limits = replace(self.limits, relative=MODEL_TOLERANCE)
        for what, expected, measured in (
            ("MFU against the fitted model", figures.expected_mfu, figures.mfu),
            ("joules per token against the fitted model", figures.expected_joules, figures.joules),
        ):
            if len(expected) >= self.limits.least and measured:
                findings.append(against_model(what, sum(expected) / len(expected), measured, limits))
        model = load[0]
        for finding in findings:
            self.measured(replace(finding, model=model))
        tell(
            [replace(finding, model=model) for finding in findings if self._stays(load, finding)],
            lambda kind, text, _: self.record(kind, text, model),
            lambda _: None,
        )

    def _stays(self, load: Load, finding: Finding) -> bool:
        """Whether it has moved, as it had in the lot before."""
        key, upwards = (load, finding.what), finding.after > finding.before
        before = self._moved.pop(key, None)
        if not finding.drifted:
            return False
        self._moved[key] = upwards
        return before == upwards


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
