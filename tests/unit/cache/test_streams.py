from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from cache.streams import DONE, StreamAssembler, answer_to_sse, sse_to_answer

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chat(finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello.", "refusal": None, **message},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": USAGE,
    }


def text(finish_reason: str = "stop") -> dict[str, Any]:
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 7,
        "model": "m",
        "choices": [{"index": 0, "text": " upon a time", "logprobs": None, "finish_reason": finish_reason}],
        "usage": USAGE,
    }


def chunks(frames: list[bytes]) -> list[dict[str, Any]]:
    assert frames[-1] == DONE
    for frame in frames:
        assert frame.startswith(b"data: ")
        assert frame.endswith(b"\n\n")
    return [orjson.loads(frame[6:]) for frame in frames[:-1]]


def frame(**fields: Any) -> bytes:
    return b"data: " + orjson.dumps({"id": "c", "object": "chat.completion.chunk", **fields}) + b"\n\n"


def delta(finish_reason: str | None = None, **fields: Any) -> bytes:
    return frame(choices=[{"index": 0, "delta": fields, "finish_reason": finish_reason}])


@pytest.mark.parametrize(
    "body",
    [
        chat(),
        chat(reasoning_content="Let me think."),
        chat(reasoning="Let me think."),
        chat(content=None, refusal="I cannot help with that."),
        chat("length", content="Hello"),
        chat(
            "tool_calls",
            content=None,
            tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        ),
        chat(content="line\nline\r\n\r\ndata: [DONE]\n\n\x00 “é” 🙂"),
        {**chat(), "system_fingerprint": "fp", "service_tier": "default"},
        text(),
        text("length"),
    ],
)
def test_a_body_survives_the_way_through_a_stream(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    assert sse_to_answer(answer_to_sse(body, include_usage=True)) == body
    assert body == before


@given(st.text(min_size=1), st.text())
def test_any_text_survives(content: str, reasoning: str) -> None:
    body = chat(content=content, **({"reasoning_content": reasoning} if reasoning else {}))
    assert sse_to_answer(answer_to_sse(body, include_usage=True)) == body


def test_chat_frames_are_what_the_client_library_expects() -> None:
    frames = answer_to_sse(chat(reasoning_content="Hm."), include_usage=True)
    parsed = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks(frames)]
    assert [bool(chunk.choices) for chunk in parsed] == [True, True, True, True, False]
    assert parsed[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in parsed[:-1]] == [None, None, None, "stop"]
    assert [chunk.usage is not None for chunk in parsed] == [False, False, False, False, True]


def test_completion_frames_are_what_the_client_library_expects() -> None:
    parsed = [Completion.model_validate(chunk) for chunk in chunks(answer_to_sse(text(), include_usage=False))]
    assert "".join(chunk.choices[0].text for chunk in parsed) == " upon a time"
    assert parsed[-1].choices[0].finish_reason == "stop"


def test_usage_is_sent_only_to_those_who_asked() -> None:
    frames = chunks(answer_to_sse(chat(), include_usage=False))
    assert all("usage" not in chunk and chunk["choices"] for chunk in frames)


def test_reasoning_comes_before_the_content() -> None:
    frames = chunks(answer_to_sse(chat(reasoning_content="Hm."), include_usage=False))
    assert [set(chunk["choices"][0]["delta"]) for chunk in frames] == [
        {"role", "content"},
        {"reasoning_content"},
        {"content"},
        set(),
    ]


def test_several_choices_keep_their_index() -> None:
    body = chat()
    body["choices"].append({**body["choices"][0], "index": 1})
    assert [chunk["choices"][0]["index"] for chunk in chunks(answer_to_sse(body, include_usage=False))] == [
        0, 0, 0, 1, 1, 1,
    ]  # fmt: skip


def test_pieces_are_joined_and_the_body_is_what_the_client_library_expects() -> None:
    answer = sse_to_answer(
        [
            b": keep-alive\n\n",
            delta(role="assistant", content=""),
            delta(reasoning_content="Let "),
            delta(reasoning_content="me see."),
            delta(content="Hel"),
            delta(content="lo."),
            delta("stop"),
            frame(choices=[], usage=USAGE),
            DONE,
        ]
    )
    assert answer is not None
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello.", "Let me see.")
    assert answer["usage"] == USAGE
    ChatCompletion.model_validate({**answer, "created": 1, "model": "m"}, strict=True)


def test_tool_calls_are_joined_by_index() -> None:
    answer = sse_to_answer(
        [
            delta(role="assistant", tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]),
            delta(tool_calls=[{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"x":'}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
            delta("tool_calls"),
            DONE,
        ]
    )
    assert answer is not None
    calls = answer["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [("a", '{"x":1}'), ("b", "{}")]


def test_logprobs_are_joined() -> None:
    def piece(token: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": {"content": token}, "finish_reason": finish}
        return frame(choices=[{**choice, "logprobs": {"content": [{"token": token}], "refusal": None}}])

    answer = sse_to_answer([piece("a"), piece("b", "stop"), DONE])
    assert answer is not None
    assert answer["choices"][0]["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}]}


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [DONE],
        [delta(content="Hel")],
        [delta(content="Hello."), delta("stop")],
        [delta(content="Hel"), DONE],
        [delta(content="Hel"), b'data: {"error": {"message": "engine died"}}\n\n', delta("stop"), DONE],
        [frame(choices=[{"index": 1, "delta": {"content": "x"}, "finish_reason": "stop"}]), DONE],
        [delta("stop", content="x"), DONE, delta(content="y")],
        [delta("stop", content="x"), b"data: {half\n\n", DONE],
        [delta("stop", content="x"), DONE, b"data: trailing"],
        [delta("stop", content="x"), b"data: [1]\n\n", DONE],
    ],
    ids=[
        "nothing", "only done", "cut", "no done", "no finish", "error", "second choice",
        "after done", "not json", "rest", "not an object",
    ],
)  # fmt: skip
def test_an_incomplete_stream_gives_no_body(frames: list[bytes]) -> None:
    assert sse_to_answer(frames) is None


@given(st.lists(st.integers(1, 40), max_size=30))
def test_how_the_bytes_are_cut_does_not_matter(cuts: list[int]) -> None:
    data = b"".join(answer_to_sse(chat(content="a\n\nb"), include_usage=True))
    assembler = StreamAssembler()
    position = 0
    for cut in cuts:
        assembler.feed(data[position : position + cut])
        position += cut
    assembler.feed(data[position:])
    assert assembler.answer() == chat(content="a\n\nb")


@given(st.lists(st.binary(max_size=40)))
def test_no_bytes_raise(frames: list[bytes]) -> None:
    sse_to_answer(frames)
