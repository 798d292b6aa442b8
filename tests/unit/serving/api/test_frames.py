from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.frames import DONE, StreamEnd, frame_of, payload_of

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
RECEIPT = {"receipt_id": "r"}


def token(text: str = "x", finish: str | None = None, index: int = 0, **fields: Any) -> bytes:
    return frame_of(
        {"id": "c", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}], **fields}
    )


def relay(end: StreamEnd, frames: list[bytes], receipt: dict[str, Any] | None = RECEIPT) -> list[bytes]:
    return [out for frame in frames for out in end.feed(frame)] + list(end.last(receipt))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(TEXTS, max_size=10), st.booleans(), st.booleans(), st.booleans())
def test_all_frames_but_the_last_pass_unchanged_and_in_order(
    texts: list[str], asked: bool, usage_told: bool, finish_in_content: bool
) -> None:
    frames = [token(text) for text in texts]
    frames.append(token("end" if finish_in_content else "", finish="stop"))
    tail = [frame_of({"id": "c", "choices": [], "usage": USAGE})] if usage_told else []
    end = StreamEnd(asked)
    out = relay(end, [*frames, *tail, DONE])
    assert end.done
    assert out[-1] == DONE
    assert out[: len(texts)] == frames[: len(texts)]
    last = payload_of(out[-2])
    assert last is not None
    assert last["usage"] == ({**USAGE, "wattgate": RECEIPT} if usage_told else {"wattgate": RECEIPT})
    if asked and usage_told:
        assert out[:-2] == frames
        assert last["choices"] == []
    else:
        assert len(out) == len(frames) + 1
        assert {**last, "usage": None} == {**(payload_of(frames[-1]) or {}), "usage": None}


@given(
    st.lists(
        st.tuples(st.integers(0, 3), TEXTS, st.sampled_from([None, None, "stop", "length"])), min_size=1, max_size=15
    )
)
def test_frames_of_several_choices_keep_their_order(parts: list[tuple[int, str, str | None]]) -> None:
    frames = [token(text, finish, index) for index, text, finish in parts]
    end = StreamEnd(False)
    out = relay(end, [*frames, DONE], receipt=None)
    assert out == [*frames, DONE]
    assert end.endings == [finish for _, _, finish in parts if finish]


def test_usage_that_nobody_asked_for_moves_into_the_last_content_chunk() -> None:
    out = relay(StreamEnd(False), [token("a"), token("", "stop"), frame_of({"choices": [], "usage": USAGE}), DONE])
    assert [payload["choices"] == [] for frame in out[:-1] if (payload := payload_of(frame))] == [False, False]
    assert payload_of(out[1])["usage"]["wattgate"] == RECEIPT  # type: ignore[index]


def test_continuous_usage_leaves_frames_alone_and_the_last_one_counts() -> None:
    first, second = token("a", usage={**USAGE, "completion_tokens": 1}), token("b", usage=USAGE)
    end = StreamEnd(True)
    out = relay(end, [first, second, token("", "stop"), frame_of({"choices": [], "usage": USAGE}), DONE])
    assert out[:2] == [first, second]
    assert end.usage == USAGE


@pytest.mark.parametrize("error", [{"message": "bad", "code": 400}, "bad"])
def test_an_error_frame_is_kept_back_and_told(error: Any) -> None:
    end = StreamEnd(True)
    assert end.feed(token("a")) == (token("a"),)
    assert end.feed(frame_of({"error": error})) == ()
    assert end.error is not None
    assert end.error["message"] == "bad"


def test_a_stream_that_broke_off_is_not_done() -> None:
    end = StreamEnd(True)
    end.feed(token("a", "stop"))
    assert not end.done
    assert end.error is None


@pytest.mark.parametrize(
    "text", ['"finish_reason": "stop"', '"usage": {"x":1}', 'data: {"error":1}', "[DONE]", "data: [DONE]"]
)
def test_text_that_looks_like_the_end_is_only_text(text: str) -> None:
    end = StreamEnd(False)
    assert end.feed(token(text)) == (token(text),)
    assert (end.done, end.error, end.usage, end.endings) == (False, None, None, [])


@pytest.mark.parametrize("frame", [b": ping\n\n", b"data: \n\n", b"data: [1]\n\n", b'data: {"usage": {\n\n', b"\n\n"])
def test_frames_that_are_no_chunks_pass(frame: bytes) -> None:
    assert StreamEnd(False).feed(frame) == (frame,)


def test_without_any_frame_only_done_is_left() -> None:
    assert StreamEnd(True).last(RECEIPT) == (DONE,)


@given(st.dictionaries(TEXTS, st.integers(0, 9) | TEXTS, max_size=4))
def test_a_frame_gives_back_its_payload(payload: dict[str, Any]) -> None:
    assert payload_of(frame_of(payload)) == payload
    assert orjson.loads(frame_of(payload)[6:]) == payload


@pytest.mark.parametrize("space", ["", " "])
def test_a_stream_that_refuses_says_so_besides_how_it_ended(space: str) -> None:
    end = StreamEnd(include_usage=False)
    frames = [
        'data: {"choices":[{"index":0,"delta":{"refusal":null,"content":""},"finish_reason":null}]}\n\n',
        'data: {"choices":[{"index":0,"delta":{"refusal":"I cannot"},"finish_reason":null}]}\n\n',
        'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    ]
    passed = [out for frame in frames for out in end.feed(frame.replace(":", ":" + space).encode())]
    assert len(passed) == 2
    assert end.endings == ["refusal", "stop"]
