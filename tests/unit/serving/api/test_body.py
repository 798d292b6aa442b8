from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.body import ClientGone, parse_body, read_body
from serving.errors import BodyTooLarge, GatewayError, InvalidRequest

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
MIB = 1024 * 1024


def received(*parts: bytes, then: dict[str, Any] | None = None) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A body in parts; ``then`` in place of the last part's end."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if then is None:
        messages[-1]["more_body"] = False
    else:
        messages.append(then)

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return receive


async def test_a_body_comes_whole_however_it_was_cut() -> None:
    assert await read_body(received(b"abc"), 3) == b"abc"
    assert await read_body(received(b"a", b"", b"bc", b""), 3) == b"abc"
    assert await read_body(received(b""), 3) == b""


@pytest.mark.parametrize("parts", [(b"abcd",), (b"ab", b"cd"), (b"abcd", b""), (b"a", b"b", b"c", b"d", b"")])
async def test_a_body_above_the_limit_is_refused_after_it_was_read(parts: tuple[bytes, ...]) -> None:
    receive = received(*parts)
    with pytest.raises(BodyTooLarge) as refused:
        await read_body(receive, 3)
    assert "3 bytes" in refused.value.message
    with pytest.raises(IndexError):
        await receive()


async def test_fifty_megabytes_are_dropped_as_they_come() -> None:
    left = 50

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": bytes(MIB), "more_body": left > 0}

    with pytest.raises(BodyTooLarge):
        await read_body(receive, 4 * MIB)
    assert left == 0


async def test_a_sender_that_never_ends_is_cut_off() -> None:
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 16
        return {"type": "http.request", "body": bytes(16 * MIB), "more_body": True}

    with pytest.raises(BodyTooLarge):
        await read_body(receive, MIB)
    assert 256 < sent <= 512


@pytest.mark.parametrize("parts", [(), (b"a",)])
async def test_a_client_that_goes_in_mid_body_is_gone(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(ClientGone):
        await read_body(received(*parts, then={"type": "http.disconnect"}), 10)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"model": "m"',
        b'{"model": "m",}',
        b"{'model': 'm'}",
        b"\xff\xfe{",
        b'{"model": "\xc3\x28"}',
        b'{"model": "\\ud800", "messages": []}',
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x00",
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_body(CHAT, raw)
    assert refused.value.code == "invalid_json"
    assert len(refused.value.message) < 500


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"1", b"null", b"true"])
def test_json_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="JSON object"):
        parse_body(CHAT, raw)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"model": "m" * 513}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": ["x"]}]},
            "messages[1].content[0]",
        ),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"stop": 3}, "stop"),
        ({"stop": [3]}, "stop[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": "x"}}, "stream_options.include_usage"),
        ({"seed": 1.5}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"user": 3}, "user"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"logprobs": 3}, "logprobs"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    raw = json.dumps(GOOD | fields).encode()
    with pytest.raises(InvalidRequest) as refused:
        parse_body(CHAT, raw)
    assert refused.value.param == param
    assert param in refused.value.message
    assert refused.value.code in ("invalid_value", "missing_required_parameter")


@pytest.mark.parametrize(("path", "missing"), [(CHAT, "model"), (CHAT, "messages"), (TEXT, "prompt"), (TEXT, "model")])
def test_a_missing_field_is_named(path: str, missing: str) -> None:
    body = {"model": "m", "messages": GOOD["messages"], "prompt": "x"}
    del body[missing]
    with pytest.raises(InvalidRequest) as refused:
        parse_body(path, orjson.dumps(body))
    assert (refused.value.param, refused.value.code) == (missing, "missing_required_parameter")


@pytest.mark.parametrize("prompt", [3, None, {}, [{}], [1.5], ["a", 1], [[1], ["a"]]])
def test_a_prompt_of_the_wrong_type_is_named(prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_body(TEXT, orjson.dumps({"model": "m", "prompt": prompt}))
    assert refused.value.param is not None
    assert refused.value.param.startswith("prompt")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": None, "n": None, "temperature": None, "stream": None, "stop": None, "stream_options": None},
        {"max_tokens": 10**9},
        {"temperature": 0, "top_p": 1, "seed": -(2**62)},
        {"stop": []},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"unknown": {"deep": [1]}, "guided_json": {}},
        {"messages": [{"role": "user", "content": "é😀\u0000"}]},
    ],
)
def test_what_is_sound_passes_as_it_was_sent(fields: dict[str, Any]) -> None:
    body = GOOD | fields
    assert parse_body(CHAT, orjson.dumps(body)) == body


@pytest.mark.parametrize("prompt", ["x", "", ["a", "b"], [1, 2], [[1], [2]]])
def test_prompts_of_every_form_pass(prompt: Any) -> None:
    body = {"model": "m", "prompt": prompt}
    assert parse_body(TEXT, orjson.dumps(body)) == body


LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
KEYS = st.sampled_from(["role", "content", "x"])
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
FIELDS = st.sampled_from([*GOOD, "prompt", "max_tokens", "n", "stream", "stream_options", "stop", "tools", "user"])


@given(st.sampled_from([CHAT, TEXT]), st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_json_passes_or_is_refused_in_the_error_tree(path: str, fields: dict[str, Any]) -> None:
    refused: GatewayError | None = None
    try:
        parse_body(path, orjson.dumps(GOOD | fields))
    except GatewayError as error:
        refused = error
    assert refused is None or (refused.status == 400 and refused.param)


@given(st.binary(max_size=60))
def test_any_bytes_pass_or_are_refused_in_the_error_tree(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_body(CHAT, raw)
