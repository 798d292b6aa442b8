"""The controller in a replica: a window of what its requests saw, a decision, the cap moved, and all of it told."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from typing import Protocol

from serving.call import Call
from serving.config import GatewayConfig
from serving.control_settings import CapControlSettings
from serving.engines.asked import asked_sequences
from serving.engines.base import Engine, EngineAnswer
from serving.errors import DeadlineExceeded
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.operations.decisions import DecisionLog
from serving.operations.events import EventLog
from serving.placement.caps import THE_ENGINE, most_caps
from serving.placement.placed import placed_models
from serving.telemetry.ended import Ended
from serving.tuning.controller import Controller, Decision
from serving.tuning.observer import WindowObserver
from serving.tuning.slo import Slo

_TOKEN = b'"finish_reason":null'
"""In the frames with a token but the last, as vLLM, SGLang and our own engines write them; a stream of another shape
is judged when it has ended."""
_OPENING = b'"role":'
_NOTHING_SAID = b'"content":""'
_TOO_LATE = DeadlineExceeded.status


class Cap(Protocol):
    """``AdmissionQueue`` is one, and ``HoldableCap``."""

    @property
    def cap(self) -> int: ...

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    def resize(self, cap: int) -> None: ...


class CapControl:
    """An ``EndedSink``; ``tick`` is called about once a second. On one event loop, so nothing is locked."""

    def __init__(
        self,
        settings: CapControlSettings,
        cap: Cap,
        *,
        model: str,
        source: str,
        most_cap: int,
        metrics: Metrics,
        events: EventLog,
        decisions: DecisionLog,
        intensity: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cap = cap
        self._model = model
        self._source = source
        self._most_cap = most_cap
        self._metrics = metrics
        self._events = events
        self._decisions = decisions
        self._intensity = intensity
        self._clock = clock
        self._settings = CapControlSettings()
        self._controller: Controller | None = None
        self._observer = WindowObserver(clock())
        self._late = 0
        """Requests of the open window whose deadline passed."""
        self._opened = clock()
        self._last: Decision | None = None
        self.reconfigure(settings, cap.cap)

    def reconfigure(self, settings: CapControlSettings, configured_cap: int | None) -> None:
        """New bounds from the next window on. ``configured_cap``: begin again there; None: it has not changed."""
        before, self._settings = self._settings, settings
        if settings.mode == "off":
            self._controller = None
            return
        law = settings.law(self._most_cap)
        if self._controller is None or configured_cap is not None or before.mode != settings.mode:
            self._controller = Controller(law, self._cap.cap if configured_cap is None else configured_cap)
            self._open()
        else:
            self._controller.reconfigure(law)

    def _open(self) -> None:
        self._opened = self._clock()
        self._observer.reset(self._opened)
        self._late = 0

    def watch(self, call: Call, answer: EngineAnswer) -> Callable[[bytes], None] | None:
        """A stream's tokens as they come, as ``wattgate load`` counts them: between frames with content. Of several
        choices in one stream the frames are not one after the other: those are judged when they have ended.
        """
        if self._controller is None or not call.stream or asked_sequences(call.path, call.payload) > 1:
            return None
        return _Stream(call, answer, self._observer, self._clock).frame

    def ended(self, request: Ended) -> None:
        """Of the requests that the engine answered, and of those whose deadline passed: without them overload would
        be judged by its survivors. A hit, another failure or a page says nothing of the batch.
        """
        late = request.status == _TOO_LATE
        if self._controller is None or not (late or request.status == 200) or (request.cache or "").startswith("HIT"):
            return
        if request.page is not None:
            return
        tokens, first = request.use.output_tokens, request.first_token_seconds
        if late:
            self._late += 1
        if request.told_tokens:
            # several tokens may have come in one frame
            self._observer.answered(None, None, max(0, tokens - request.told_tokens))
            return
        if late:
            # its first token would have come later still
            self._observer.answered(request.seconds if first is None else first, None, tokens)
            return
        each = (request.seconds - first) / (tokens - 1) if first is not None and tokens > 1 else None
        self._observer.answered(first, each, tokens)

    def close(self) -> None:
        return None

    def tick(self) -> None:
        """Sample the queue; at the end of a window decide."""
        controller = self._controller
        if controller is None:
            return
        self._observer.sampled(self._cap.running, self._cap.waiting)
        now = self._clock()
        if now - self._opened < self._settings.window_seconds:
            return
        window = self._observer.close(now, intensity_grams_per_kwh=self._intensity())
        late, self._late = self._late, 0
        self._opened = now
        decision = controller.observe(window)
        if decision.applied:
            self._cap.resize(decision.cap)
        self._tell(decision, judged=late > 0 or window.tokens >= controller.settings.least_tokens)

    def skip(self) -> None:
        """Give up the open window: its cap was not the controller's."""
        self._open()

    def _tell(self, decision: Decision, *, judged: bool) -> None:
        model, mode = self._model, self._settings.mode
        move = "raise" if decision.cap > decision.previous_cap else "cut" if decision.moved else "stay"
        self._metrics.add("wattgate_control_decisions_total", 1, model, mode, move, decision.reason.name.lower())
        self._metrics.set("wattgate_control_wanted_cap", decision.cap, model)
        promise = Slo.parse(decision.slo.split(", "))
        seen = {"ttft": decision.seen_ttft_p95_seconds, "itl": decision.seen_itl_p95_seconds}
        for bound in promise.bounds:
            self._metrics.set("wattgate_control_bound_seconds", bound.seconds, model, bound.metric)
            value = seen[bound.metric]
            if value is not None:
                self._metrics.set("wattgate_control_seen_seconds", value, model, bound.metric)
        kept = _kept(promise, seen)
        if judged and kept is not None:
            self._metrics.add("wattgate_control_windows_total", 1, model, "yes" if kept else "no")
        last, self._last = self._last, decision
        if decision.moved or last is None or last.reason is not decision.reason:
            self._decisions.record(decision, model=model, source=self._source, mode=mode)
        if decision.moved:
            self._events.record("cap", sentence(decision), model)


class _Stream:
    """One stream's frames: on its hot path, so no more than a look at the clock and a count."""

    __slots__ = ("_answer", "_call", "_clock", "_gap", "_last", "_observer")

    def __init__(self, call: Call, answer: EngineAnswer, observer: WindowObserver, clock: Callable[[], float]) -> None:
        self._call = call
        self._answer = answer
        self._observer = observer
        self._gap = observer.gaps.add
        self._clock = clock
        self._last: float | None = None

    def frame(self, frame: bytes) -> None:
        # it stands near the end: from there it is found in a third of the time
        if frame.rfind(_TOKEN) < 0:
            return
        last = self._last
        if last is None:
            opening = _OPENING in frame and _NOTHING_SAID in frame
            if opening or self._answer.first_token_seconds() is None:
                return
            now = self._clock()
            self._observer.first_token(now - self._call.received_seconds)
        else:
            now = self._clock()
            self._gap(now - last)
        self._last = now
        self._call.told_tokens += 1


def _kept(promise: Slo, seen: Mapping[str, float | None]) -> bool | None:
    """Whether a window kept the promise; None where a bounded figure was not seen and no other broke its bound."""
    shares = [None if (value := seen[bound.metric]) is None else value / bound.seconds for bound in promise.bounds]
    if any(share is not None and share > 1 for share in shares):
        return False
    return None if None in shares else True


class CapControls:
    """The controllers of all engines, each with its own windows; an ``EndedSink`` and a ``TokenWatch``."""

    def __init__(self, controls: Mapping[str, CapControl], served_by: Mapping[str, str]) -> None:
        """``controls`` by model, or the only one; ``served_by``: names that clients ask for, to their model."""
        self._controls = controls
        self._served_by = served_by

    def ended(self, request: Ended) -> None:
        control = self._of(request.model)
        if control is not None:
            control.ended(request)

    def watch(self, call: Call, answer: EngineAnswer) -> Callable[[bytes], None] | None:
        """See ``TokenWatch``."""
        control = self._of(call.model)
        return None if control is None else control.watch(call, answer)

    def _of(self, model: str | None) -> CapControl | None:
        alone = next(iter(self._controls)) if len(self._controls) == 1 else ""
        return self._controls.get(self._served_by.get(model or "", alone))

    def close(self) -> None:
        return None

    def tick(self, held: Container[str] = ()) -> None:
        """``held``: models whose cap something else holds; their controllers pause."""
        for model, control in self._controls.items():
            if model in held:
                control.skip()
            else:
                control.tick()

    def reconfigure(self, model: str, settings: CapControlSettings, configured_cap: int | None) -> None:
        """See ``CapControl.reconfigure``."""
        self._controls[model].reconfigure(settings, configured_cap)


def build_cap_controls(
    config: GatewayConfig,
    caps: Mapping[str, Cap],
    engine: Engine,
    meter: MeterLink,
    source: str,
    metrics: Metrics,
    events: EventLog,
    decisions: DecisionLog,
) -> CapControls:
    """One controller for each of ``caps``."""
    only = next((model.name for model in engine.models()), "unknown")

    def intensity() -> float | None:
        stamp = meter.rates.intensity
        return None if stamp is None else stamp.grams_per_kwh

    controls = {
        name: CapControl(
            config.control,
            caps[name],
            model=only if name == THE_ENGINE else name,
            source=source,
            most_cap=most,
            metrics=metrics,
            events=events,
            decisions=decisions,
            intensity=intensity,
        )
        for name, most in most_caps(config).items()
    }
    served_by = {name: one.name for one in placed_models(config) for name in one.served_names}
    return CapControls(controls, served_by)


def sentence(decision: Decision) -> str:
    """A move in words: from, to, why, seen, expected."""
    seen = [
        f"{name} p95 {value:.3g} s"
        for name, value in (("ttft", decision.seen_ttft_p95_seconds), ("itl", decision.seen_itl_p95_seconds))
        if value is not None
    ]
    expected = decision.expected_itl_p95_seconds
    return (
        f"{'cap' if decision.applied else 'dry run: cap would go'} {decision.previous_cap} -> {decision.cap}: "
        f"{decision.reason}; seen {', '.join([*seen, f'{decision.seen_tokens_per_second:.3g} tokens/s'])}"
        f"{'' if expected is None else f'; expected itl p95 {expected:.3g} s'}; promise {decision.slo}"
    )
