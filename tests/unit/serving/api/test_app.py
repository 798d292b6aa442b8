"""The HTTP side: envelopes, headers and the small pages."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import httpx
import openai
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.receipt import Receipt
from serving.engines.base import EngineStatus
from serving.errors import EngineUnavailable
from tests.unit.serving.conftest import House


@pytest.mark.parametrize(
    ("raw", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b'{"model": "\xff"}', None, "invalid_json"),
        (b"[]", None, "invalid_json"),
        (b"", None, "invalid_json"),
        (b'{"model": "m", "messages": []}', "messages", "invalid_value"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "model", "missing_required_parameter"),
        (b'{"model": "m", "messages": [{"role": "user"}], "max_tokens": -5}', "max_tokens", "invalid_value"),
    ],
)
async def test_bad_bodies_get_the_envelope_and_spend_nothing(
    house: House, raw: bytes, param: str | None, code: str
) -> None:
    reply = await house.send(raw=raw)
    assert reply.status == 400
    assert reply.headers["content-type"] == "application/json"
    assert (reply.error["type"], reply.error["param"], reply.error["code"]) == ("invalid_request_error", param, code)
    assert house.engine.requests == []
    assert "x-request-id" in reply.headers


async def test_a_body_above_the_limit_is_413(house: House) -> None:
    reply = await house.send(raw=[b"x" * 60_000, b"x" * 60_000])
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")


async def test_a_body_that_does_not_come_is_408() -> None:
    house = House(request_timeout_seconds=0.01)
    reply = await house.send(raw=b"{", ends=False)
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")


async def test_a_body_for_embeddings_that_are_off_and_does_not_come_is_408() -> None:
    house = House(request_timeout_seconds=0.01)
    reply = await house.send(raw=b"{", ends=False, path="/v1/embeddings")
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")


async def test_without_a_key_nothing_of_a_body_is_kept_or_judged(new_house: Callable[..., House]) -> None:
    house = new_house(keys={"acme": "key"})
    for raw in ([b"x" * 60_000, b"x" * 60_000], b"{"):
        assert (await house.send(raw=raw)).status == 401
    assert (await house.send(raw=[b"x" * 60_000, b"x" * 60_000], authorization="Bearer key")).status == 413


async def test_a_client_that_goes_in_mid_body_is_let_go(house: House) -> None:
    exchange = house.begin(raw=[b"{", b""])
    exchange.leave()
    await exchange.end()
    half = house.begin(raw=[])
    half.leave()
    await half.end()
    assert half.messages == []


async def test_requests_with_the_same_id_of_their_client_have_each_their_own_receipt(house: House) -> None:
    replies = [await house.send(house.chat(text), x_request_id="mine") for text in ("one", "two")]
    assert [reply.headers["x-request-id"] for reply in replies] == ["mine", "mine"]
    receipts = [reply.json["usage"]["wattgate"]["receipt_id"] for reply in replies]
    assert len({*receipts, "mine"}) == 3
    assert receipts == [request.request_id for request in house.engine.requests]


async def test_a_key_outside_ascii_gets_a_clear_401(new_house: Callable[..., House]) -> None:
    house = new_house(keys={"acme": "key"})
    for key in ("schlüssel", "key\u00ff"):
        refused = await house.send(house.chat(), authorization=f"Bearer {key}")
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
        assert "ASCII" in refused.error["message"]
        assert (await house.get("/v1/models", authorization=f"Bearer {key}")).status == 401


@pytest.mark.parametrize("sent", ["abc-123", "a.b:c_d", "A" * 128])
async def test_a_harmless_request_id_comes_back(house: House, sent: str) -> None:
    assert (await house.send(house.chat(), x_request_id=sent)).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "a b", "A" * 129, "a\nb", "<script>", "é", "a/b"])
async def test_any_other_request_id_is_replaced(house: House, sent: str) -> None:
    for payload in (house.chat(sent), {}):
        given = (await house.send(payload, x_request_id=sent)).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods_are_405(house: House, method: str) -> None:
    reply = await house.send(raw=b"", method=method)
    assert (reply.status, reply.error["code"], reply.headers["allow"]) == (405, "method_not_allowed", "POST")
    assert (await house.send(raw=b"", path="/v1/models", method="POST")).status == 405


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/chat/completions", "/v1/chat/completions/x", "/..%2f"])
async def test_other_paths_are_404_with_the_envelope(house: House, path: str) -> None:
    reply = await house.get(path)
    assert reply.status == 404
    assert reply.error["type"] == "invalid_request_error"


async def test_models(house: House) -> None:
    listed = (await house.get("/v1/models")).json
    assert [model["id"] for model in listed["data"]] == ["m"]
    assert (await house.get("/v1/models/m")).json["max_model_len"] == 1000
    missing = await house.get("/v1/models/org/other")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")


async def test_health_is_the_process_and_readiness_the_engine(house: House) -> None:
    assert (await house.get("/readyz")).status == 200
    house.engine.now = EngineStatus(ready=False, reason="the model is loading")
    reply = await house.get("/readyz")
    assert reply.status == 503
    assert "the model is loading" in reply.error["message"]
    assert (await house.get("/healthz")).status == 200


async def test_a_receipt_is_its_tenants_only() -> None:
    house = House(keys={"a": "key-a", "b": "key-b"})
    house.books.receipts[("a", "r-1")] = Receipt("r-1", status="final")
    found = await house.get("/v1/receipts/r-1", authorization="Bearer key-a")
    assert (found.status, found.json["status"]) == (200, "final")
    others = await house.get("/v1/receipts/r-1", authorization="Bearer key-b")
    absent = await house.get("/v1/receipts/r-2", authorization="Bearer key-b")
    assert (others.status, absent.status) == (404, 404)
    assert others.error["message"].replace("r-1", "r-2") == absent.error["message"]


async def test_metrics_are_scraped(house: House) -> None:
    await house.send(house.chat())
    reply = await house.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert b"wattgate_requests_total{" in reply.body


async def test_a_crash_tells_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    house.engine.refuse = ZeroDivisionError("secret")
    reply = await house.send(house.chat())
    assert (reply.status, reply.error["code"]) == (500, "internal_error")
    assert "secret" not in reply.body.decode()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.builds(orjson.dumps, st.dictionaries(st.text(max_size=5), st.none(), max_size=3)))
def test_no_body_brings_the_gateway_down(raw: bytes) -> None:
    async def play() -> None:
        house = House()
        reply = await house.send(raw=raw)
        assert reply.status == 400
        assert reply.error["message"]
        assert (await house.send(house.chat())).status == 200

    asyncio.run(play())


def sdk(house: House, key: str = "any") -> openai.AsyncOpenAI:
    transport = httpx.ASGITransport(house.app)  # type: ignore[arg-type]
    client = httpx.AsyncClient(transport=transport, base_url="http://gateway/v1")
    return openai.AsyncOpenAI(api_key=key, base_url="http://gateway/v1", http_client=client, max_retries=0)


async def test_the_stock_sdk_reads_answers_and_receipts(house: House) -> None:
    async with sdk(house) as client:
        messages: list[Any] = [{"role": "user", "content": "Hi"}]
        answer = await client.chat.completions.create(model="m", messages=messages)
        assert answer.choices[0].message.content == "Hello there"
        assert answer.usage is not None
        assert answer.usage.model_extra is not None
        assert answer.usage.model_extra["wattgate"]["receipt_id"]
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
        text, receipts = "", []
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            if chunk.usage is not None:
                receipts.append(chunk.usage.model_extra)
        assert text == "Hello there"
        assert len(receipts) == 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "nope"}, openai.NotFoundError),
        ({"messages": []}, openai.BadRequestError),
        ({"max_tokens": -1}, openai.BadRequestError),
        ({"max_tokens": 5000}, openai.BadRequestError),
        ({"messages": [{"role": "user", "content": "x" * 100_000}]}, openai.APIStatusError),
    ],
)
async def test_the_stock_sdk_raises_the_matching_class(
    house: House, fields: dict[str, Any], error: type[openai.APIStatusError]
) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | fields
    async with sdk(house) as client:
        with pytest.raises(error) as raised:
            await client.chat.completions.create(**asked)
    assert raised.value.body is not None
    assert json.loads(raised.value.response.text)["error"]["message"] in str(raised.value)


async def test_the_stock_sdk_raises_for_keys_and_faults() -> None:
    house = House(keys={"a": "key-a"})
    messages: list[Any] = [{"role": "user", "content": "Hi"}]
    async with sdk(house, "wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="m", messages=messages)
    house.engine.refuse = EngineUnavailable("dead")
    async with sdk(house, "key-a") as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(model="m", messages=messages)
    assert raised.value.code == "engine_unavailable"


async def test_requests_in_flight_are_counted_from_their_first_byte_to_their_last(house: House) -> None:
    def inside() -> float:
        return house.count("wattgate_inflight_requests", endpoint="chat/completions")

    house.engine.gate.clear()
    held = house.begin(house.chat())
    await house.engine.entered.wait()
    half_read = house.begin(raw=[b"{"], ends=False)
    await asyncio.sleep(0)
    assert inside() == 2
    half_read.leave()
    await half_read.end()
    assert inside() == 1
    house.engine.gate.set()
    await held.end()
    assert inside() == 0
