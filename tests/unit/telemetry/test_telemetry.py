"""One line and one span a request, with no word of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from serving.access import KeyRing
from serving.api.body import BODIES
from serving.config import TelemetrySettings
from serving.engines.base import EngineRequest
from serving.placement.telemetry import build_sinks
from serving.telemetry.ended import Ended
from serving.telemetry.request_log import RequestLog
from serving.telemetry.spans import Spans
from tests.unit.serving.conftest import House
from tests.unit.serving.fakes import Told, answer_frames, broken_stream, chunk

SECRET = "a-very-secret-word"
KEY = {"authorization": f"Bearer key-{SECRET}"}


def house(*sinks: Any, **app: Any) -> House:
    return House(keys=KeyRing({"acme": KEY["authorization"][7:]}), sinks=sinks, **app)


async def test_a_clients_id_is_told_beside_ours(tmp_path: Path) -> None:
    path, told = tmp_path / "requests.jsonl", Told()
    log = RequestLog(path)
    there = house(log, told)
    reply = await there.send(there.chat(), x_request_id="theirs", **KEY)
    await there.send(there.chat("other"), **KEY)
    await there.send({}, x_request_id="theirs", **KEY)
    await asyncio.to_thread(log.close)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [line.get("client_request_id") for line in lines] == ["theirs", None, "theirs"]
    assert lines[0]["request_id"] == reply.json["usage"]["wattgate"]["receipt_id"] != "theirs"
    assert len({line["request_id"] for line in lines}) == 3
    assert [request.client_request_id for request in told.requests] == ["theirs", None, "theirs"]


@pytest.mark.parametrize("stream", [True, False])
async def test_how_the_engine_ended_the_answer_is_told(stream: bool) -> None:
    told = Told()
    there = house(told)

    async def cut(request: EngineRequest) -> AsyncIterator[bytes]:
        for frame in answer_frames(request):
            yield frame.replace(b'"stop"', b'"length"')

    await there.send(there.chat("whole", stream=stream), **KEY)
    there.engine.script = cut
    await there.send(there.chat("cut", stream=stream), **KEY)
    assert [request.endings for request in told.requests] == [("stop",), ("length",)]


async def test_a_line_for_every_end_and_no_word_of_the_request(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    log = RequestLog(path)
    there = house(log)
    await there.send(there.chat(SECRET), **KEY)
    await there.send(there.chat(SECRET, stream=True), **KEY)
    await there.send(there.chat(SECRET, model=SECRET), **KEY)
    await there.send({"messages": SECRET}, **KEY)
    await there.send(there.chat(SECRET), authorization="Bearer wrong-" + SECRET)
    there.engine.script = broken_stream(chunk(SECRET), error=RuntimeError(SECRET))
    await there.send(there.chat("x" + SECRET, stream=True), **KEY)
    there.engine.script = there.engine.words
    there.engine.gate.clear()
    there.engine.entered.clear()
    gone = there.begin(there.chat("y" + SECRET), **KEY)
    await there.engine.entered.wait()
    gone.leave()
    await gone.end()
    log.close()
    text = path.read_text()
    assert SECRET not in text
    lines = [orjson.loads(line) for line in text.splitlines()]
    assert [(line["status"], line.get("error")) for line in lines] == [
        (200, None),
        (200, None),
        (404, "model_not_found"),
        (400, "missing_required_parameter"),
        (401, "invalid_api_key"),
        (200, "broken_stream"),
        (499, "client_gone"),
    ]
    first, hit = lines[0], lines[1]
    assert (first["tenant"], first["model"], first["path"]) == ("acme", "m", "/v1/chat/completions")
    assert (first["prompt_tokens"], first["output_tokens"], first["cache"], first["stream"]) == (3, 2, "MISS", False)
    assert (hit["cache"], hit["output_tokens"], hit["stream"]) == ("HIT-EXACT", 0, True)
    assert first["total_ms"] >= first["overhead_ms"] >= 0
    assert "model" not in lines[2], "a name that is not served is the client's own text"
    assert "tenant" not in lines[4]


async def test_a_prompt_is_in_the_log_alone_where_it_is_asked_for_and_redacted(tmp_path: Path) -> None:
    path, told = tmp_path / "requests.jsonl", Told()
    log = RequestLog(path)
    there = house(log, told, log_prompts=True)
    await there.send(there.chat(f"{SECRET} of ada@example.org", stream=True), **KEY)
    await there.send({"messages": SECRET}, **KEY)
    await asyncio.to_thread(log.close)
    first, refused = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert first["prompt"] == f"{SECRET} of [email]"
    assert "prompt" not in refused, "what was not understood has no prompt"
    assert all(SECRET not in span.to_json() for span in spans_of(*told.requests))
    assert SECRET.encode() not in (await there.get("/metrics", **KEY)).body
    assert SECRET not in repr(told.requests)


async def test_a_disk_that_is_full_costs_lines_and_no_answer() -> None:
    lost: list[None] = []
    log = RequestLog(Path("/dev/full"), lambda: lost.append(None))
    there = house(log)
    for _ in range(3):
        assert (await there.send(there.chat(), **KEY)).status == 200
    log.close()
    assert len(lost) == 3


def spans_of(*requests: Ended) -> tuple[ReadableSpan, ...]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    spans = Spans(provider)
    for request in requests:
        spans.ended(request)
    finished = tuple(memory.get_finished_spans())
    spans.close()
    return finished


async def test_a_span_has_the_genai_names_and_the_requests_own_times() -> None:
    told = Told()
    there = house(told)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await there.send(there.chat(SECRET, max_tokens=7, stream=True, seed=5), traceparent=parent, **KEY)
    (span,) = spans_of(*told.requests)
    assert span.name == "chat m"
    assert span.kind is SpanKind.SERVER
    assert span.attributes is not None
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["gen_ai.request.max_tokens"] == 7
    assert span.attributes["gen_ai.usage.input_tokens"] == 3
    assert span.attributes["gen_ai.usage.output_tokens"] == 2
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["gen_ai.request.seed"] == 5
    assert SECRET not in span.to_json()
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    (event,) = span.events
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time <= event.timestamp <= span.end_time


async def test_a_clients_trace_state_goes_on_into_our_span() -> None:
    told = Told()
    there = house(told)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await there.send(there.chat(), traceparent=parent, tracestate="vendor=a1,other=b2", **KEY)
    await there.send(there.chat("x"), tracestate="vendor=a1", **KEY)
    first, orphan = spans_of(*told.requests)
    assert first.context is not None
    assert dict(first.context.trace_state) == {"vendor": "a1", "other": "b2"}
    assert orphan.parent is None
    assert orphan.context is not None
    assert dict(orphan.context.trace_state) == {}, "a state without its parent is nobody's"


@pytest.mark.parametrize("path", sorted(BODIES))
def test_each_endpoint_of_a_model_has_an_operation_of_the_conventions(path: str) -> None:
    (span,) = spans_of(Ended("id", path, 200, None, 1.0, 2.0, model="m"))
    operation, model = span.name.split()
    assert (operation in {"chat", "text_completion", "embeddings"}, model) == (True, "m")


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [(200, None, StatusCode.UNSET), (429, "x", StatusCode.UNSET), (503, "x", StatusCode.ERROR)],
)
def test_only_our_own_failures_are_errors(status: int, error: str | None, expected: StatusCode) -> None:
    (span,) = spans_of(Ended("id", "/v1/completions", status, error, 1.0, 2.0, parent="not a parent"))
    assert span.status.status_code is expected
    assert (span.name, span.parent) == ("text_completion", None)
    assert (span.start_time, span.end_time) == (10**9, 3 * 10**9)


def test_a_page_has_a_span_by_its_route_and_no_model() -> None:
    page = {"page": "/v1/files/{file_id}", "method": "DELETE", "tenant": "acme"}
    (span,) = spans_of(Ended("id", "/v1/files/file-1", 200, None, 1.0, 2.0, **page))  # type: ignore[arg-type]
    assert span.name == "DELETE /v1/files/{file_id}"
    assert dict(span.attributes or {}) == {
        "http.request.method": "DELETE",
        "http.route": "/v1/files/{file_id}",
        "http.response.status_code": 200,
        "wattgate.request_id": "id",
        "wattgate.tenant": "acme",
    }


async def test_nothing_is_told_unless_configured(tmp_path: Path) -> None:
    there = house()
    assert build_sinks(TelemetrySettings(), there.metrics) == ()
    sinks = build_sinks(
        TelemetrySettings(request_log=str(tmp_path / "l"), otlp_endpoint="http://127.0.0.1:1"), there.metrics
    )
    assert [type(sink) for sink in sinks] == [RequestLog, Spans]
    for sink in sinks:
        await asyncio.to_thread(sink.close)
