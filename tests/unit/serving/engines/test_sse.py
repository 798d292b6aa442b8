from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines import sse
from serving.engines.sse import DONE, EventTooLong, SseSplitter

DATA = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1, max_size=12).filter(
    lambda text: text.strip() and not text[0].isspace()
)


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    return [whole[a:b] for a, b in itertools.pairwise(at)]


def split(parts: list[bytes]) -> list[bytes]:
    splitter = SseSplitter()
    return [frame for part in parts for frame in splitter.feed(part)]


@given(st.lists(DATA, max_size=6), st.lists(st.integers(0, 400), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_come_out_whole_and_unchanged_however_they_are_cut(
    texts: list[str], places: list[int], line_end: str
) -> None:
    whole = "".join(f"data: {text}{line_end}{line_end}" for text in texts).encode()
    assert split(cut(whole, places)) == [f"data: {text}\n\n".encode() for text in texts]


@given(st.binary(max_size=80), st.lists(st.integers(0, 80), max_size=8))
def test_any_bytes_give_frames_and_the_same_ones_however_they_are_cut(raw: bytes, places: list[int]) -> None:
    frames = split(cut(raw, places))
    assert frames == split([raw])
    assert all(frame.startswith(b"data: ") and frame.endswith(b"\n\n") and frame.count(b"\n") == 2 for frame in frames)


@pytest.mark.parametrize(
    ("raw", "frames"),
    [
        (b": comment\n\ndata: a\n\n", [b"data: a\n\n"]),
        (b"\n\n\n\ndata: a\n\n", [b"data: a\n\n"]),
        (b"data:a\n\n", [b"data: a\n\n"]),
        (b"data: {\ndata: }\n\n", [b"data: { }\n\n"]),
        (b"event: x\nid: 3\ndata: a\nretry: 5\n\n", [b"data: a\n\n"]),
        (b"event: ping\n\n", []),
        (b"data:\n\n", []),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"data: a\n\n", b"data: b\n\n"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"data: a\n\n"]),
        (b"data: never ended\n", []),
    ],
)
def test_what_is_and_what_is_not_an_event(raw: bytes, frames: list[bytes]) -> None:
    assert split([raw]) == frames
    assert split([raw[i : i + 1] for i in range(len(raw))]) == frames


@pytest.mark.parametrize(
    ("rest", "frames"), [(b"data: [DONE]", [DONE]), (b"data: [DONE]\n", [DONE]), (b'data: {"half', []), (b"", [])]
)
def test_the_end_of_the_stream_completes_only_done(rest: bytes, frames: list[bytes]) -> None:
    splitter = SseSplitter()
    splitter.feed(b"data: a\n\n" + rest)
    assert splitter.end() == frames
    assert splitter.end() == []


def test_an_event_that_does_not_end_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_LONGEST_BYTES", 100)
    splitter = SseSplitter()
    splitter.feed(b"data: " + b"x" * 90)
    with pytest.raises(EventTooLong):
        splitter.feed(b"x" * 10)
