"""Several models in one gateway, each in replicas of its own; simulated engines, everything else real."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from serving.config_sources import load_config
from serving.placement.placed import placed_models
from tests.integration.serving.gateway_process import GatewayProcess, until
from tests.integration.serving.streams import Streams

pytestmark = pytest.mark.ray

CONFIG = """
server: {{port: 0}}
access:
  api_keys: {{both: key-of-both, one: key-of-one}}
  admin_key: key-of-admin
  tenants: {{one: {{models: [alpha]}}}}
models:
  alpha:
    engine: {{kind: simulated, simulated: {{seed: 1}}}}
    admission: {{max_concurrency: {cap}}}
  org/beta:
    engine: {{kind: simulated, simulated: {{seed: 2}}}}
  gone:
    engine: {{kind: upstream, upstream: {{url: "http://127.0.0.1:9"}}}}
    fallback: {{model: alpha}}
"""
BOTH = {"authorization": "Bearer key-of-both"}
ADMIN = {"authorization": "Bearer key-of-admin"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("separate") / "gateway.yaml"
    path.write_text(CONFIG.format(cap=8))
    return path


@pytest.fixture(scope="module")
def gateway(file: Path) -> Iterator[GatewayProcess]:
    made = GatewayProcess("--config", str(file)).wait_ready()
    yield made
    made.stop()


def client(gateway: GatewayProcess, tenant: str = "both") -> openai.OpenAI:
    return gateway.client(f"key-of-{tenant}")


def metric(gateway: GatewayProcess, name: str, **labels: str) -> float:
    return gateway.metric(name, headers=ADMIN, **labels)


def ask(gateway: GatewayProcess, model: str, text: str, tenant: str = "both", **more: Any) -> Any:
    return client(gateway, tenant).chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=8, **more
    )


def test_each_model_answers_under_its_name_and_only_to_its_tenants(gateway: GatewayProcess) -> None:
    texts = {}
    for model in ("alpha", "org/beta"):
        answer = ask(gateway, model, "Which are you?").parse()
        assert answer.model == model
        texts[model] = answer.choices[0].message.content
    assert texts["alpha"] != texts["org/beta"]
    assert [model.id for model in client(gateway).models.list()] == ["alpha", "org/beta", "gone"]
    assert [model.id for model in client(gateway, "one").models.list()] == ["alpha"]
    with pytest.raises(openai.PermissionDeniedError):
        ask(gateway, "org/beta", "May I?", tenant="one")
    with pytest.raises(openai.NotFoundError) as missing:
        ask(gateway, "gamma", "Are you there?")
    assert "alpha, org/beta" in missing.value.message


def test_a_stream_carries_usage_and_the_receipt_of_the_model_that_worked(gateway: GatewayProcess) -> None:
    stream = client(gateway).chat.completions.create(
        model="org/beta",
        messages=[{"role": "user", "content": "Stream, please."}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {"org/beta"}
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 12
    receipt = usage.model_dump()["wattgate"]
    assert receipt["flops_decode"] > 0
    assert receipt["method"] == "simulated"
    assert receipt["cache"] == "MISS"


def test_the_internal_routes_are_closed_to_clients(gateway: GatewayProcess, file: Path) -> None:
    body = {"model": "alpha", "messages": [{"role": "user", "content": "past the gate"}]}
    for placed in placed_models(load_config(file, environment={}).config):
        for headers in ({}, BOTH, ADMIN, {"authorization": "Bearer internal"}):
            base = f"{gateway.url}{placed.route}"
            for answer in (
                httpx.post(f"{base}/v1/chat/completions", json=body, headers=headers, timeout=30),
                httpx.get(f"{base}/v1/models", headers=headers, timeout=30),
                httpx.get(f"{base}/readyz", headers=headers, timeout=30),
            ):
                assert answer.status_code == 404
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_work_is_booked_once_where_it_is_done(gateway: GatewayProcess) -> None:
    def final(receipt_id: str) -> dict[str, Any] | None:
        got = httpx.get(f"{gateway.url}/v1/receipts/{receipt_id}", headers=BOTH, timeout=30)
        return got.json() if got.status_code == 200 and got.json()["status"] == "final" else None

    def booked(asked: list[Any]) -> list[dict[str, Any]]:
        ids = [one.headers["x-wattgate-receipt"] for one in asked]
        return [until(lambda name=name: final(name), what="a final receipt") for name in ids]

    # what came before is booked when this is
    booked([ask(gateway, "org/beta", "Book what is open.")])
    before = metric(gateway, "wattgate_flops_total", model="org/beta")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: ask(gateway, "org/beta", f"Book {n}."), range(8)))
    receipts = booked(answers)
    flops = sum(receipt["flops_prefill"] + receipt["flops_decode"] for receipt in receipts)
    until(lambda: metric(gateway, "wattgate_flops_total", model="org/beta") >= before + flops, what="the work's series")
    assert metric(gateway, "wattgate_flops_total", model="org/beta") == before + flops
    assert metric(gateway, "wattgate_books_difference_joules") == 0
    told = [json.loads(one.text)["usage"]["wattgate"] for one in answers]
    assert [one["flops_decode"] for one in told] == [receipt["flops_decode"] for receipt in receipts]


def test_an_equal_request_is_a_hit_and_costs_the_model_nothing(gateway: GatewayProcess) -> None:
    request = {"model": "alpha", "messages": [{"role": "user", "content": "Twice the same."}], "temperature": 0}
    first = client(gateway).chat.completions.with_raw_response.create(**request)
    again = client(gateway).chat.completions.with_raw_response.create(**request)
    other = client(gateway).chat.completions.with_raw_response.create(**request | {"model": "org/beta"})
    assert [one.headers["x-cache"] for one in (first, again, other)] == ["MISS", "HIT-EXACT", "MISS"]


def test_a_model_whose_engine_is_away_is_answered_by_its_fallback(gateway: GatewayProcess) -> None:
    before = metric(gateway, "wattgate_fallback_total", model="gone", fallback="alpha")
    for stream in (False, True):
        raw = ask(gateway, "gone", f"Anybody there? {stream}", stream=stream)
        assert raw.headers["x-wattgate-fallback"] == "alpha"
        if not stream:
            answer = raw.parse()
            assert answer.model == "alpha"
            assert any("alpha" in note for note in answer.usage.model_dump()["wattgate"]["notes"])
    until(
        lambda: metric(gateway, "wattgate_fallback_total", model="gone", fallback="alpha") == before + 2,
        what="the count",
    )
    # another model's answer is not kept as this one's
    assert ask(gateway, "gone", "Anybody there? False").headers["x-cache"] == "MISS"


def test_a_client_that_goes_frees_the_model(gateway: GatewayProcess) -> None:
    body = {"model": "alpha", "messages": [{"role": "user", "content": "A long one."}], "stream": True}
    with httpx.stream(
        "POST", f"{gateway.url}/v1/chat/completions", json=body | {"max_tokens": 2000, "ignore_eos": True}, headers=BOTH
    ) as answer:
        frames = answer.iter_raw()  # dropped, it would close the connection
        next(frames)
        assert httpx.get(f"{gateway.url}/readyz", timeout=30).json()["running"] >= 1
    until(lambda: httpx.get(f"{gateway.url}/readyz", timeout=30).json()["running"] == 0, what="an idle engine")


def test_a_new_cap_of_one_model_is_live_and_drops_no_stream(gateway: GatewayProcess, file: Path) -> None:
    until(lambda: metric(gateway, "wattgate_concurrency_cap", model="alpha") == 8, what="the cap's series")
    streams = Streams(gateway, "alpha", count=4, tokens=150, headers=BOTH)
    file.write_text(CONFIG.format(cap=3))
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: metric(gateway, "wattgate_concurrency_cap", model="alpha") == 3, what="the new cap")
    assert metric(gateway, "wattgate_concurrency_cap", model="org/beta") == 32
    assert streams.complete()


def test_a_model_added_to_the_file_is_told_to_wait_for_a_restart_while_the_others_go_on(
    gateway: GatewayProcess, file: Path
) -> None:
    streams = Streams(gateway, "alpha", count=2, tokens=100, headers=BOTH)
    file.write_text(CONFIG.format(cap=4) + "  gamma:\n    engine: {kind: simulated}\n")
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: "not applied: models.gamma is new" in gateway.output(), what="the refusal")
    # what is live in the same file is applied
    until(lambda: metric(gateway, "wattgate_concurrency_cap", model="alpha") == 4, what="the new cap")
    assert [model.id for model in client(gateway).models.list()] == ["alpha", "org/beta", "gone"]
    assert streams.complete()


def test_what_was_accepted_is_answered_after_a_sigterm(gateway: GatewayProcess) -> None:
    # the last of this module: it ends the gateway
    streams = Streams(gateway, "org/beta", count=4, tokens=100, headers=BOTH)
    gateway.process.send_signal(signal.SIGTERM)
    assert streams.complete()
    assert gateway.stop() == 0
