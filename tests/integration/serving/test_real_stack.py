"""The real model behind the whole stack, through the stock SDK."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from serving.engines.vllm import has_gpu
from tests.integration.operations.prometheus_process import PrometheusProcess
from tests.integration.serving.engine_core import is_core
from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.redis]

ASK = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(real_gateway: GatewayProcess) -> openai.OpenAI:
    return real_gateway.client()


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


def receipt_of(usage) -> dict:  # type: ignore[no-untyped-def]
    return usage.model_dump()["wattgate"]


def test_an_answer_has_a_receipt_and_its_repetition_comes_from_the_cache(client, model) -> None:  # type: ignore[no-untyped-def]
    first = client.chat.completions.with_raw_response.create(model=model, messages=ASK, temperature=0, max_tokens=32)
    answer = first.parse()
    assert "Paris" in answer.choices[0].message.content
    assert first.headers["x-cache"] == "MISS"
    receipt = receipt_of(answer.usage)
    # the host beside a GPU may be modelled, and the whole is then no better
    assert receipt["energy_methods"]["accelerator"] == ("measured" if has_gpu() else "modelled")
    assert receipt["flops_prefill"] > receipt["flops_decode"] > 0
    assert receipt["energy_joules"]["total"] > 0
    assert receipt["operational_grams"] > 0
    assert float(first.headers["x-wattgate-joules"]) == pytest.approx(receipt["energy_joules"]["total"], rel=1e-4)

    again = client.chat.completions.with_raw_response.create(model=model, messages=ASK, temperature=0, max_tokens=32)
    repeated = again.parse()
    assert again.headers["x-cache"] == "HIT-EXACT"
    assert int(again.headers["age"]) >= 0
    assert repeated.choices[0].message.content == answer.choices[0].message.content
    hit = receipt_of(repeated.usage)
    assert hit["cache"] == "HIT-EXACT"
    assert hit["avoided_joules"] > 0
    assert hit["energy_joules"]["total"] < receipt["energy_joules"]["total"] / 10


def test_a_stream_carries_usage_and_receipt_in_its_last_chunk(client, model) -> None:  # type: ignore[no-untyped-def]
    for asked in (True, False):
        options = {"stream_options": {"include_usage": True}} if asked else {}
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": f"Count to five, please ({asked})."}],
            temperature=0,
            max_tokens=24,
            stream=True,
            **options,
        )
        chunks = list(stream)
        assert [chunk.usage is not None for chunk in chunks[:-1]] == [False] * (len(chunks) - 1)
        usage = chunks[-1].usage
        assert (not chunks[-1].choices) == asked
        assert usage.completion_tokens > 1
        assert receipt_of(usage)["flops_decode"] > 0


def test_an_answer_stored_by_a_unary_call_serves_a_stream(client, model) -> None:  # type: ignore[no-untyped-def]
    request = {"model": model, "messages": [{"role": "user", "content": "Name one colour."}], "temperature": 0}
    unary = client.chat.completions.create(**request)
    raw = client.chat.completions.with_raw_response.create(**request, stream=True)
    assert raw.headers["x-cache"] == "HIT-EXACT"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices)
    assert text == unary.choices[0].message.content


def test_receipts_become_final_and_the_books_balance(client, model, real_gateway) -> None:  # type: ignore[no-untyped-def]
    def ask(number: int) -> str:
        answer = client.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": f"Tell me about the number {number}."}],
            max_tokens=24,
            extra_headers={"cache-control": "no-store"},
        )
        return answer.headers["x-wattgate-receipt"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(ask, range(8)))

    def final(receipt_id: str) -> dict | None:  # type: ignore[type-arg]
        got = httpx.get(f"{real_gateway.url}/v1/receipts/{receipt_id}", timeout=30)
        return got.json() if got.status_code == 200 and got.json()["status"] == "final" else None

    receipts = [until(lambda receipt_id=receipt_id: final(receipt_id), what="a final receipt") for receipt_id in ids]
    assert all(receipt["energy_joules"]["accelerator"] > 0 for receipt in receipts)
    assert real_gateway.metric("wattgate_books_difference_joules") == 0
    metered = real_gateway.metric("wattgate_energy_joules_total")
    booked = real_gateway.metric("wattgate_request_joules_total", tenant="default")
    assert metered > booked > sum(receipt["energy_joules"]["accelerator"] for receipt in receipts)


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"max_tokens": -5}, openai.BadRequestError, "max_tokens"),
        ({"max_tokens": 10**9}, openai.BadRequestError, "max_tokens"),
        ({"temperature": "hot"}, openai.BadRequestError, "temperature"),
        ({"model": "no-such-model"}, openai.NotFoundError, "model"),
        ({"messages": [{"role": "user", "content": "word " * 6000}]}, openai.BadRequestError, None),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, openai.BadRequestError, None),
    ],
)
def test_bad_requests_raise_the_sdks_class_and_spend_nothing(client, model, real_gateway, change, error, param) -> None:  # type: ignore[no-untyped-def]
    flops = real_gateway.metric("wattgate_flops_total")
    with pytest.raises(error) as caught:
        client.chat.completions.create(**({"model": model, "messages": ASK} | change))
    if param:
        assert caught.value.param == param
    assert caught.value.body["message"]
    assert real_gateway.metric("wattgate_flops_total") == flops


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe{}", 400),
        (b'{"model": "\xff"}', 400),
        (b"[" * 100_000, 400),
        (b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', 400),
        (b"x" * 50_000_000, 413),
    ],
)
def test_bodies_that_are_no_requests_get_an_envelope(real_gateway, body, status) -> None:  # type: ignore[no-untyped-def]
    answer = httpx.post(f"{real_gateway.url}/v1/chat/completions", content=body, timeout=60)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert httpx.get(f"{real_gateway.url}/readyz", timeout=30).status_code == 200


def test_unknown_paths_and_methods_get_an_envelope(real_gateway) -> None:  # type: ignore[no-untyped-def]
    assert httpx.get(f"{real_gateway.url}/v1/nothing", timeout=30).json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{real_gateway.url}/v1/chat/completions", timeout=30).status_code == 405


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_the_engine(real_gateway, model, stream) -> None:  # type: ignore[no-untyped-def]
    # httpx sends head and body apart, which once kept the proxy from seeing a unary client go
    before = real_gateway.metric("wattgate_requests_total", status="499")
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Write a very long story. {stream}"}],
        "max_tokens": 2000,
        "stream": stream,
        "ignore_eos": True,
    }
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.stream(
            "POST", f"{real_gateway.url}/v1/chat/completions", json=body, timeout=httpx.Timeout(30, read=1.5)
        ) as answer,
    ):
        assert stream, "a unary answer of 2000 tokens came within 1.5 s"
        next(answer.iter_raw())
    until(lambda: httpx.get(f"{real_gateway.url}/readyz", timeout=30).json()["running"] == 0, what="an idle engine")
    until(lambda: real_gateway.metric("wattgate_requests_total", status="499") == before + 1, what="the count")


def test_a_deadline_ends_a_request_and_frees_the_engine(real_gateway, model) -> None:  # type: ignore[no-untyped-def]
    body = {"model": model, "messages": ASK, "max_tokens": 2000, "ignore_eos": True}
    answer = httpx.post(
        f"{real_gateway.url}/v1/chat/completions", json=body, headers={"x-request-timeout": "1"}, timeout=30
    )
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    until(lambda: httpx.get(f"{real_gateway.url}/readyz", timeout=30).json()["running"] == 0, what="idle")


def test_structured_output_is_vllms_own(client, model) -> None:  # type: ignore[no-untyped-def]
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "The capital of France, as JSON."}],
        max_tokens=40,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
    )
    assert re.match(r'\s*\{\s*"city"', answer.choices[0].message.content)


def test_the_command_asks_and_prints_a_receipt(real_gateway) -> None:  # type: ignore[no-untyped-def]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from serving.cli import main; main()",
            "chat",
            "--url",
            real_gateway.url,
            "--json",
            "Hi",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["answer"]
    assert answer["usage"]["wattgate"]["receipt_id"]


@pytest.fixture
def prometheus(real_gateway: GatewayProcess, tmp_path: Path) -> Iterator[PrometheusProcess | None]:
    """Watches the gateway; alerts fire after two seconds. None where it is not installed."""
    if shutil.which("prometheus") is None:
        yield None
        return
    prometheus = PrometheusProcess(real_gateway.url, tmp_path, hold="2s")
    until(lambda: prometheus.query('up{job="wattgate"} == 1'), what="the first scrape")
    yield prometheus
    prometheus.stop()


def test_a_dead_engine_core_is_told_apart_and_replaced(real_gateway, client, model, prometheus) -> None:  # type: ignore[no-untyped-def]
    supervisor = psutil.Process(real_gateway.process.pid)

    def engine_cores() -> list[psutil.Process]:
        return [process for process in supervisor.children(recursive=True) if is_core(process)]

    cores = until(engine_cores, 180, "the engine core's process")
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "A long story about a lighthouse."}],
        max_tokens=1000,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    assert prometheus is None or "WattgateEngineRestarts" not in prometheus.firing()
    os.kill(cores[0].pid, signal.SIGKILL)
    with pytest.raises(openai.APIError):
        for _ in stream:
            pass

    refusals: list[openai.APIStatusError] = []

    def answers() -> bool:
        try:
            return bool(client.chat.completions.create(model=model, messages=ASK, max_tokens=8).choices)
        except openai.APIStatusError as error:
            refusals.append(error)
            return False
        except openai.APIConnectionError:
            return False

    until(answers, timeout_seconds=240, what="a replacement of the engine")
    assert {error.status_code for error in refusals} <= {500, 503}
    assert all(isinstance(error.body, dict) and error.body["message"] for error in refusals)
    assert real_gateway.metric("wattgate_engine_deaths_total") >= 1
    if prometheus is not None:
        until(lambda: "WattgateEngineRestarts" in prometheus.firing(), what="the alert")


def test_a_response_has_a_receipt_in_its_usage_whole_and_streamed(client, model, real_gateway) -> None:  # type: ignore[no-untyped-def]
    request = {"model": model, "input": ASK[0]["content"], "temperature": 0, "max_output_tokens": 32}
    raw = client.responses.with_raw_response.create(**request)
    answer = raw.parse()
    assert raw.headers["x-cache"] == "BYPASS"
    assert "Paris" in answer.output_text
    assert answer.usage.input_tokens > answer.usage.output_tokens > 0
    receipt = receipt_of(answer.usage)
    assert receipt["flops_prefill"] + receipt["flops_decode"] > 0
    assert receipt["receipt_id"] == raw.headers["x-wattgate-receipt"]

    spoken = list(client.responses.create(**request, stream=True))
    assert spoken[0].type == "response.created"
    assert spoken[-1].type == "response.completed"
    text = "".join(event.delta for event in spoken if event.type == "response.output_text.delta")
    assert text == spoken[-1].response.output_text == answer.output_text
    assert receipt_of(spoken[-1].response.usage)["flops_decode"] == receipt["flops_decode"]
    until(lambda: real_gateway.metric("wattgate_running_requests") == 0, what="the end of the run")

    with client.responses.stream(**request) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == answer.output_text


def test_responses_that_need_a_store_are_refused(client, model) -> None:  # type: ignore[no-untyped-def]
    for field in ({"background": True}, {"previous_response_id": "resp_1"}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model=model, input="Hi", **field)
        assert caught.value.param in field
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_1")
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=model, input=[{"role": "nobody", "content": 3}])


def test_a_response_whose_client_goes_leaves_the_engine_empty(client, model, real_gateway) -> None:  # type: ignore[no-untyped-def]
    stream = client.responses.create(model=model, input="Tell a long story.", stream=True, max_output_tokens=1500)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    until(lambda: real_gateway.metric("wattgate_running_requests") == 0, what="the end of the run")


def test_embeddings_beside_the_engine_are_paid_for_by_the_host(client, real_gateway) -> None:  # type: ignore[no-untyped-def]
    raw = client.embeddings.with_raw_response.create(model="all-MiniLM-L6-v2", input=["clean power", "a grid"] * 16)
    receipt_id = raw.headers["x-wattgate-receipt"]
    assert len(raw.parse().data) == 32

    def final() -> dict | None:  # type: ignore[type-arg]
        got = httpx.get(f"{real_gateway.url}/v1/receipts/{receipt_id}", timeout=30)
        return got.json() if got.status_code == 200 and got.json()["status"] == "final" else None

    energy = until(final, what="a final receipt")["energy_joules"]
    assert energy["accelerator"] == 0
    assert energy["host"] > 0
    assert real_gateway.metric("wattgate_books_difference_joules") == 0
