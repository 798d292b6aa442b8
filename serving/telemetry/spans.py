"""One span a request, with the names of OpenTelemetry's GenAI semantic conventions (v1.37).

Made when the request has ended, with its own times: nothing is held while it runs. Exported by OpenTelemetry's
batching thread; a collector that is away costs spans, never an answer.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.engines.response_events import RESPONSES
from serving.telemetry.ended import Ended

_NANO = 10**9
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    # the conventions have no name of its own for it: it is a chat by another API
    RESPONSES: "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
_ASKED = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
}


class Spans:
    """``EndedSink``."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("wattgate")
        self._propagator = TraceContextTextMapPropagator()

    def ended(self, request: Ended) -> None:
        operation = _OPERATIONS.get(request.path, "unknown")
        if request.page is None:
            name, told = f"{operation} {request.model}" if request.model else operation, attributes(request, operation)
        else:
            name, told = f"{request.method} {request.page}", page_attributes(request)
        started = int(request.started_wall_seconds * _NANO)
        carrier = {"traceparent": request.parent, "tracestate": request.parent_state}
        sent = {name: value for name, value in carrier.items() if value}
        parent = self._propagator.extract(sent) if request.parent else Context()
        span = self._tracer.start_span(
            name,
            context=parent,
            kind=SpanKind.SERVER,
            attributes=told,
            start_time=started,
        )
        if request.first_token_seconds is not None:
            span.add_event("first_token", timestamp=started + int(request.first_token_seconds * _NANO))
        if request.status >= 500:
            span.set_status(Status(StatusCode.ERROR, request.error))
        span.end(end_time=started + int(request.seconds * _NANO))

    def close(self) -> None:
        self._provider.shutdown()


def attributes(request: Ended, operation: str) -> dict[str, Any]:
    use = request.use
    found: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "wattgate",
        "gen_ai.request.model": request.model,
        "gen_ai.usage.input_tokens": use.prompt_tokens,
        "gen_ai.usage.output_tokens": use.output_tokens,
        "http.response.status_code": request.status,
        "error.type": request.error,
        "wattgate.request_id": request.request_id,
        "wattgate.client_request_id": request.client_request_id,
        "wattgate.tenant": request.tenant,
        "wattgate.cache": request.cache,
        "wattgate.priority": request.priority,
        "wattgate.queue_seconds": request.queue_seconds,
        "wattgate.overhead_seconds": request.overhead_seconds,
        "wattgate.energy_joules": request.joules,
        "wattgate.co2e_grams": request.grams,
        "wattgate.cost": request.cost,
        "wattgate.work": request.work,
    }
    found |= {_ASKED[name]: value for name, value in (request.asked or {}).items()}
    return {name: value for name, value in found.items() if value is not None}


def page_attributes(request: Ended) -> dict[str, Any]:
    """By the conventions for HTTP: no model was asked."""
    found: dict[str, Any] = {
        "http.request.method": request.method,
        "http.route": request.page,
        "http.response.status_code": request.status,
        "error.type": request.error,
        "wattgate.request_id": request.request_id,
        "wattgate.client_request_id": request.client_request_id,
        "wattgate.tenant": request.tenant,
    }
    return {name: value for name, value in found.items() if value is not None}


def otlp_spans(endpoint: str) -> Spans:
    """To an OTLP/HTTP collector, ``http://host:4318``."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return batched(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5))


def batched(exporter: SpanExporter) -> Spans:
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "wattgate"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Spans(provider)
