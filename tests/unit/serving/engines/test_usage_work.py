from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.work import WorkRecord
from serving.engines.base import EngineRequest
from serving.engines.usage_work import BOOK_SECONDS, Habits, UsageWork
from tests.unit.serving.engines.contract import totals
from tests.unit.serving.fakes import ManualClock
from tests.unit.serving.openai_server import frame


class Rig:
    def __init__(self, habits: Habits | None = None, path: str = "/v1/chat/completions", **payload: Any) -> None:
        self.clock = ManualClock()
        self.work: list[WorkRecord] = []
        body = {"model": "m", "messages": [{"role": "user", "content": "x" * 368}], **payload}
        request = EngineRequest("r", path, body, "m", "t")
        self.habits = habits or Habits()
        self.usage = UsageWork(request, self.work.append, self.habits, self.clock)

    def token(self, index: int = 0, seconds: float = 0.1) -> None:
        self.clock.advance(seconds)
        self.usage.frame(frame({"choices": [{"index": index, "delta": {"content": "x"}}]}))

    def told(self, prompt: int, completion: int, cached: int = 0) -> None:
        details = {"cached_tokens": cached}
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
        self.usage.frame(frame({"choices": [], "usage": usage}))


@given(
    n=st.integers(1, 4),
    tokens=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 0.6)), max_size=40),
    hidden=st.integers(0, 10),
    prompt=st.integers(1, 500),
    cached=st.integers(0, 500),
)
def test_a_finished_requests_records_add_up_to_its_usage(
    n: int, tokens: list[tuple[int, float]], hidden: int, prompt: int, cached: int
) -> None:
    rig = Rig(n=n, stream=True)
    for index, seconds in tokens:
        rig.token(index % n, seconds)
    # each sequence has a token at least; some tokens show no text
    silent = n - len({index % n for index, _ in tokens})
    completion = len(tokens) + silent + hidden
    cached = min(cached, prompt)
    rig.told(prompt, completion, cached)
    rig.usage.close()
    rig.usage.close()
    assert totals(rig.work) == (prompt - cached, cached, completion - n)
    assert all(record.started_seconds <= record.ended_seconds for record in rig.work)


@given(st.lists(st.floats(0, 0.4), min_size=1, max_size=60))
def test_what_was_seen_is_reported_within_the_booking_time(pauses: list[float]) -> None:
    rig = Rig(stream=True)
    for seconds in pauses:
        rig.token(seconds=seconds)
        assert rig.clock() - rig.usage._booked_seconds < BOOK_SECONDS
    assert totals(rig.work)[2] <= len(pauses) - 1
    rig.usage.close()
    assert totals(rig.work)[2] == len(pauses) - 1


def test_what_is_not_reported_yet_is_pending_and_a_long_stream_no_longer_from_its_beginning() -> None:
    rig = Rig(stream=True)
    sent = rig.clock()
    rig.token(seconds=4.0)
    assert rig.usage.pending_seconds(rig.clock()) == sent
    for _ in range(20):
        rig.token(seconds=0.4)
    pending = rig.usage.pending_seconds(rig.clock())
    assert pending is not None
    assert rig.clock() - pending < BOOK_SECONDS
    rig.usage.close()
    assert rig.usage.pending_seconds(rig.clock()) is None


def test_a_prefill_however_long_is_pending_since_it_was_sent() -> None:
    rig = Rig(stream=True)
    sent = rig.clock()
    rig.clock.advance(100.0)
    assert rig.usage.pending_seconds(rig.clock()) == sent


def test_consecutive_decode_records_have_consecutive_contexts() -> None:
    rig = Rig(stream=True)
    for _ in range(20):
        rig.token()
    rig.told(92, 25)
    rig.usage.close()
    decodes = [record for record in rig.work if record.decode_tokens]
    assert len(decodes) > 2
    # while it runs the prompt is estimated at a quarter of its bytes; the frame of the message counts too
    first = decodes[0].first_context_tokens
    assert 92 <= first <= 110
    for before, after in itertools.pairwise(decodes[:-1]):
        assert after.first_context_tokens == before.first_context_tokens + before.decode_tokens
    assert decodes[-1].first_context_tokens == 92 + sum(d.decode_tokens for d in decodes[:-1]) + 1


def test_a_unary_answer_is_split_between_prefill_and_decode_by_steps() -> None:
    rig = Rig()
    sent = rig.clock()
    rig.clock.advance(2.0)
    rig.usage.body(orjson.dumps({"usage": {"prompt_tokens": 10, "completion_tokens": 8}}))
    rig.usage.close()
    prefill, decode = rig.work
    assert (prefill.started_seconds, prefill.ended_seconds) == pytest.approx((sent, sent + 0.25))
    assert (decode.started_seconds, decode.ended_seconds) == pytest.approx((sent + 0.25, sent + 2.0))


def test_an_aborted_stream_counts_the_frames_seen() -> None:
    rig = Rig(stream=True)
    for _ in range(5):
        rig.token()
    rig.usage.close()
    prefill, cached, decode = totals(rig.work)
    assert 92 <= prefill <= 110
    assert (cached, decode) == (0, 4)


def test_an_aborted_unary_request_is_taken_to_go_at_the_pace_of_earlier_ones() -> None:
    habits = Habits()
    habits.learn(prompt_tokens=100, prompt_bytes=400, completion_tokens=50, seconds=5.0)
    rig = Rig(habits, max_tokens=64)
    rig.clock.advance(2.0)
    rig.usage.close()
    assert totals(rig.work)[2] == 19
    capped = Rig(habits, max_tokens=8)
    capped.clock.advance(2.0)
    capped.usage.close()
    assert totals(capped.work)[2] == 7


@pytest.mark.parametrize("odd", [{"n": -1000}, {"n": "abc"}, {"max_tokens": "abc"}, {"max_tokens": -5}])
@pytest.mark.parametrize("told", [False, True])
def test_a_field_that_the_endpoint_does_not_know_changes_nothing_of_the_work(odd: dict[str, Any], told: bool) -> None:
    habits = Habits(seconds_per_token=0.1)
    plain, rig = (Rig(habits, "/v1/responses", max_output_tokens=8, **fields) for fields in ({}, odd))
    for one in (plain, rig):
        one.clock.advance(2.0)
        if told:
            one.usage.body(orjson.dumps({"usage": {"prompt_tokens": 10, "completion_tokens": 8}}))
        one.usage.close()
    assert totals(rig.work)[2] == totals(plain.work)[2] == 7


def test_a_request_that_ended_as_soon_as_it_was_sent_has_no_work() -> None:
    rig = Rig(stream=True)
    rig.usage.close()
    assert rig.work == []


def test_finished_requests_teach_the_prompts_tokens_per_byte() -> None:
    habits = Habits()
    for _ in range(60):
        habits.learn(prompt_tokens=100, prompt_bytes=100, completion_tokens=1, seconds=1.0)
    assert habits.tokens_per_byte == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("sent", "counts"),
    [
        (b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', True),
        (b'data: {"choices":[{"delta": {"content": "x"}}]}\n\n', True),
        (b'data: {"choices":[{"text":"x"}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"reasoning_content":"x"}}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n', True),
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', False),
        (b'data: {"choices":[{"delta":{"content":null}}]}\n\n', False),
        (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n', False),
        (b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n', False),
    ],
)
def test_which_frames_hold_a_token(sent: bytes, counts: bool) -> None:
    rig = Rig(stream=True)
    rig.usage.frame(sent)
    assert (rig.usage.first_token_seconds is not None) is counts


@pytest.mark.parametrize(
    "usage", [None, [], "x", {"prompt_tokens": -1, "completion_tokens": "x"}, {"prompt_tokens_details": None}]
)
def test_a_usage_that_is_none_does_no_harm(usage: Any) -> None:
    rig = Rig()
    rig.clock.advance(1.0)
    rig.usage.body(orjson.dumps({"usage": usage}))
    rig.usage.close()
    assert all(min(totals([record])) >= 0 for record in rig.work)
