"""``/v1/responses`` through the gateway: events relayed, the receipt in the last one's usage, nothing kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseCompletedEvent

from serving.engines.base import EngineRequest
from serving.engines.response_events import named, plain_usage
from tests.unit.serving.conftest import House
from tests.unit.serving.response_events import USAGE, WORDS, events, frame, response

PATH = "/v1/responses"


async def respond(request: EngineRequest) -> AsyncIterator[bytes]:
    if not request.stream:
        yield orjson.dumps(response())
        return
    for event in events():
        yield frame(event)


def told(body: bytes) -> list[dict[str, Any]]:
    parts = body.split(b"\n\n")
    assert parts.pop() == b""
    out = []
    for part in parts:
        head, data = part.split(b"\n")
        out.append(orjson.loads(data.removeprefix(b"data: ")))
        assert head == b"event: " + out[-1]["type"].encode()
    return out


@pytest.fixture
def speaking(house: House) -> House:
    house.engine.script = respond
    return house


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "input": "Hi", **fields}


async def test_a_unary_response_carries_its_receipt_and_is_metered_by_its_own_names(speaking: House) -> None:
    reply = await speaking.send(ask(), path=PATH)
    assert reply.status == 200
    assert Response.model_validate(reply.json).output_text == "".join(WORDS)
    assert reply.json["usage"] | {"wattgate": None} == USAGE | {"wattgate": None}
    assert reply.json["usage"]["wattgate"]["receipt_id"] == reply.headers["x-wattgate-receipt"]
    assert reply.headers["x-cache"] == "BYPASS"
    for kind, tokens in (("prompt", 2), ("cached_prompt", 1), ("output", 3)):
        assert speaking.count("wattgate_tokens_total", kind=kind) == tokens


async def test_a_stream_ends_with_the_receipt_in_its_last_event(speaking: House) -> None:
    reply = await speaking.send(ask(stream=True), path=PATH)
    assert reply.headers["content-type"].startswith("text/event-stream")
    seen = told(reply.body)
    assert [event["type"] for event in seen] == [event["type"] for event in events()]
    assert "".join(event["delta"] for event in seen if "delta" in event) == "".join(WORDS)
    last = ResponseCompletedEvent.model_validate(seen[-1])
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 3
    assert seen[-1]["response"]["usage"]["wattgate"]["receipt_id"] == reply.headers["x-request-id"]
    assert "stream_options" not in speaking.engine.requests[0].payload
    assert speaking.count("wattgate_tokens_total", kind="output") == 3


@pytest.mark.parametrize("status", ["incomplete", "failed"])
async def test_a_response_that_ends_otherwise_is_an_end_too(speaking: House, status: str) -> None:
    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        for event in events(status):
            yield frame(event)

    speaking.engine.script = script
    seen = told((await speaking.send(ask(stream=True), path=PATH)).body)
    assert seen[-1]["type"] == f"response.{status}"
    assert "wattgate" in seen[-1]["response"]["usage"]


async def test_a_stream_that_breaks_off_ends_with_an_error_and_no_end_event(speaking: House) -> None:
    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        for event in events()[:3]:
            yield frame(event)

    speaking.engine.script = script
    reply = await speaking.send(ask(stream=True), path=PATH)
    assert b"response.completed" not in reply.body
    assert orjson.loads(reply.body.split(b"\n\n")[-2].removeprefix(b"data: "))["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
async def test_what_needs_a_store_is_refused_by_name(speaking: House, fields: Any, param: str) -> None:
    reply = await speaking.send(ask(**fields), path=PATH)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert "keeps no responses" in reply.error["message"]
    assert speaking.engine.requests == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"input": []}, "input"), ({"input": 3}, "input"), ({"max_output_tokens": 0}, "max_output_tokens")],
)
async def test_wrong_fields_are_named(speaking: House, fields: Any, param: str) -> None:
    reply = await speaking.send(ask(**fields), path=PATH)
    assert (reply.status, reply.error["param"]) == (400, param)


async def test_more_output_than_the_context_is_refused_by_its_own_name(speaking: House) -> None:
    reply = await speaking.send(ask(max_output_tokens=100_000), path=PATH)
    assert (reply.status, reply.error["param"]) == (400, "max_output_tokens")


@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
)
async def test_responses_are_not_kept(house: House, method: str, rest: str) -> None:
    reply = await house.send(raw=b"", path=f"{PATH}/resp_1{rest}", method=method)
    assert (reply.status, reply.error["code"]) == (404, "response_not_found")
    assert "keeps no responses" in reply.error["message"]


def test_an_event_that_lost_its_name_gets_it_back() -> None:
    for event in events():
        whole = frame(event)
        assert named(whole[whole.index(b"data: ") :]) == whole
    assert named(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"


def test_usage_of_chat_completions_stays_as_it_is() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    assert plain_usage(usage) == usage
    assert plain_usage(USAGE)["prompt_tokens_details"] == {"cached_tokens": 1}
