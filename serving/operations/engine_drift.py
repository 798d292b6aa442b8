"""Drift of an engine: its MFU and joules a token, against its own reference and against a fitted engine model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from metering.booking import EngineWindow
from metering.books import ClosedWindow
from serving.operations.drift import Limits, Window, against_model, compare
from serving.operations.drift_references import Reference, References
from serving.operations.drift_telling import Subject, Telling
from serving.operations.drift_watch import FORGOTTEN_SECONDS
from serving.tuning.engine_model import EngineModel

NANO = 1e9
MODEL_TOLERANCE = 0.25
"""Relative change that is told against a fitted model: its own error and that of a window's mean batch are in it."""
_BANDS_PER_OCTAVE = 4
"""A band of batches is 9 % to either side of its middle. MFU grows nearly as the batch where memory bounds it, so that
in a whole octave ordinary traffic would move it by half."""
_LOOK_WINDOWS = 30
"""How often it is looked whether what moved was let go, or is not seen any more."""
_OWN = ("MFU", "joules per token")
_FITTED = "against the fitted model"
_ALL = (*_OWN, *(f"{what} {_FITTED}" for what in _OWN))


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine's figures depend on when it has not changed itself."""

    model: str
    band: int

    @classmethod
    def of(cls, engine: EngineWindow) -> Load:
        return cls(engine.model, round(_BANDS_PER_OCTAVE * math.log2(max(1.0, engine.mean_batch))))

    @property
    def batch(self) -> str:
        return f"at a batch of {2 ** (self.band / _BANDS_PER_OCTAVE):.3g}"

    def subjects(self, whats: Sequence[str]) -> list[Subject]:
        return [(self.model, f"{what} {self.batch}") for what in whats]


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
    """Gathers lots of ``size`` metering windows that did work, by model and band of the batch: a fuller hour, whose MFU
    is higher for that alone, is not a better engine. A lot becomes the reference when the next one is like it.

    ``telling`` should have patience: minutes that a neighbour on the machine took are no drift.
    """

    telling: Telling
    size: int = 300
    limits: Limits = field(default_factory=Limits)
    fitted: EngineModel | None = None
    references: References = field(default_factory=References)
    later: Callable[[Callable[[], None]], object] = lambda work: work()
    """Where comparing is done: it reads a file and asks the cluster's store."""
    wall: Callable[[], float] = time.time
    _gathered: dict[Load, _Figures] = field(default_factory=dict)
    _candidates: dict[Load, Reference] = field(default_factory=dict)
    _seen: dict[Load, float] = field(default_factory=dict)
    """Unix time of its last window."""
    _windows: int = 0

    def closed(self, window: ClosedWindow) -> None:
        for engine in window.engines:
            tokens = engine.tokens_prefill + engine.tokens_decode
            if tokens <= 0 or engine.engine_seconds <= 0:
                continue
            load, now = Load.of(engine), self.wall()
            self._seen[load] = now
            figures = self._gathered.get(load)
            if figures is None:
                figures = self._gathered[load] = _Figures(now)
            if engine.mfu_ratio is not None:
                # while it worked: how long it had nothing to do is traffic's doing
                mfu = engine.mfu_ratio * window.window.seconds * engine.engines / engine.engine_seconds
                figures.mfu.append(mfu)
                self._expect(figures, engine, tokens, mfu)
            joules = work_joules(window, engine.model)
            if joules is not None:
                figures.joules.append(joules / tokens)
            if figures.size >= self.size:
                self.later(partial(self._conclude, load, self._gathered.pop(load)))
        self._windows += 1
        if self._windows % _LOOK_WINDOWS == 0:
            since = self.wall() - FORGOTTEN_SECONDS
            for load in [load for load, at in self._seen.items() if at < since]:
                del self._seen[load]
                # one half from before whatever happened meanwhile
                self._gathered.pop(load, None)
                self.later(partial(self.telling.forget, load.subjects(_ALL)))
            if self.telling.any_moved:
                self.later(partial(self._let_go, list(self._seen)))

    def _let_go(self, loads: Iterable[Load]) -> None:
        for load in loads:
            if self.references.shown(load.model, load.batch) is None:
                self.telling.forget(load.subjects(_OWN))

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
        reference = self._reference(load, figures.began_seconds, window)
        findings = [] if reference is None else compare(reference, window, self.limits)
        limits = replace(self.limits, relative=MODEL_TOLERANCE)
        for what, expected, measured in (
            (f"MFU {_FITTED}", figures.expected_mfu, figures.mfu),
            (f"joules per token {_FITTED}", figures.expected_joules, figures.joules),
        ):
            if len(expected) >= self.limits.least and measured:
                findings.append(against_model(what, sum(expected) / len(expected), measured, limits))
        findings = [replace(finding, model=load.model, what=f"{finding.what} {load.batch}") for finding in findings]
        told = {(finding.model, finding.what) for finding in findings}
        self.telling.forget(subject for subject in load.subjects(_ALL) if subject not in told)
        self.telling.tell(findings)

    def _reference(self, load: Load, began_seconds: float, window: Window) -> Window | None:
        candidate = self._candidates.pop(load, None)
        if candidate is not None and not any(one.drifted for one in compare(candidate.window, window, self.limits)):
            self.references.settle(load.model, candidate.began_seconds, candidate.window, load.batch)
        if self.references.shown(load.model, load.batch) is None:
            self._candidates[load] = Reference(began_seconds, window)
            return None
        return self.references.settle(load.model, began_seconds, window, load.batch)


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
