"""Runs on the engines: a slot in the model's queue, the run itself, and its work booked whatever becomes of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from serving.admission.queue import AdmissionQueue
from serving.api.forms import form_of
from serving.call import Call
from serving.engines.asked import asked_tokens
from serving.engines.base import Engine, EngineAnswer, EngineModel, EngineRequest
from serving.errors import InvalidRequest, NotFound
from serving.meter_link import MeterLink, Trace
from serving.metrics import Metrics


class TokenWatch(Protocol):
    """Who looks on while an engine streams."""

    def watch(self, call: Call, answer: EngineAnswer) -> Callable[[bytes], None] | None:
        """What is to be called with each frame as it comes; None where nobody wants to know."""


class EngineRuns:
    """``caps``: the queues of models with an engine of their own; ``cap`` is that of all others."""

    def __init__(
        self,
        engine: Engine,
        cap: AdmissionQueue,
        caps: Mapping[str, AdmissionQueue],
        meter: MeterLink,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.engine = engine
        self.cap = cap
        self._caps = dict(caps)
        self.meter = meter
        self._metrics = metrics
        self._clock = clock
        self.token_watch: TokenWatch | None = None

    def watch(self, call: Call, answer: EngineAnswer) -> Callable[[bytes], None] | None:
        """See ``TokenWatch``."""
        return None if self.token_watch is None else self.token_watch.watch(call, answer)

    def cap_of(self, model: str) -> AdmissionQueue:
        """The queue before the model's engine."""
        return self._caps.get(model, self.cap)

    def retry_after_seconds(self) -> int:
        """For whoever cannot be let in at all: until the slowest of the queues has moved."""
        return max(cap.retry_after_seconds() for cap in (self.cap, *self._caps.values()))

    def model(self, name: str) -> EngineModel:
        """Raises ``NotFound`` naming the models there are."""
        models = self.engine.models()
        for model in models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in models) or "none yet: the engine is starting"
        raise NotFound(
            f"The model '{name}' does not exist here. Served: {known}.", param="model", code="model_not_found"
        )

    def check_length(self, call: Call, model: EngineModel) -> None:
        """Raises ``InvalidRequest`` where the answer asked for cannot fit."""
        limit, asked = model.max_context_tokens, asked_tokens(call.path, call.payload)
        if limit is not None and asked is not None and asked > limit:
            param = form_of(call.path).length_param
            raise InvalidRequest(
                f"{param} is {asked}, and this model's context is {limit} tokens.",
                param=param,
                code="context_length_exceeded",
            )

    @contextlib.asynccontextmanager
    async def run(self, call: Call) -> AsyncIterator[tuple[EngineAnswer, Trace]]:
        trace = self.meter.trace(call.request_id, call.tenant, call.model)
        payload = call.payload
        if call.stream and not call.include_usage and form_of(call.path).usage_is_an_option:
            payload = payload | {"stream_options": {**(payload.get("stream_options") or {}), "include_usage": True}}
        request = EngineRequest(
            call.request_id,
            call.path,
            payload,
            call.model,
            call.tenant,
            call.priority,
            call.deadline_seconds,
            call.prompt_tokens,
        )
        asked = self._clock()
        async with self.cap_of(call.model).permit(
            call.deadline_seconds, tenant=call.tenant, priority=call.priority, prefill_tokens=call.prompt_tokens
        ) as waited:
            call.queue_seconds = waited
            self._metrics.observe("wattgate_queue_seconds", waited, call.model)
            call.overhead_seconds = asked - call.received_seconds
            self._metrics.observe("wattgate_overhead_seconds", call.overhead_seconds, "engine")
            call.trace = trace
            call.engine_asked_seconds = self._clock()
            try:
                async with self.engine.run(request, trace.record) as answer:
                    trace.follow(answer)
                    if answer.fallback is not None:
                        call.fallback = answer.fallback
                        self._metrics.add("wattgate_fallback_total", 1, call.model, answer.fallback)
                    yield answer, trace
            finally:
                # also for a client that has gone, a deadline and a dead engine: what was executed is booked
                if trace.elsewhere is None:
                    self.meter.finished(call.request_id, call.outcome.value)
