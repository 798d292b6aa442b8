"""What ``make chaos`` takes for a proper end, and what for a defect."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.bench.chaos.ends import End, Ended, Kill, refusal, stream_end, unary_end, violations
from tests.bench.chaos.overload import told_and_true
from tests.bench.chaos.soak import growth, risen

ENVELOPE = {"error": {"message": "m", "type": "server_error", "param": None, "code": "c"}}
TOKEN = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def ended(end: End, started: float = 0.0, until: float = 1.0, *, stream: bool = True, **more: Any) -> Ended:
    return Ended(end, started, until, stream, **more)


def kill(what: str, at: float) -> Kill:
    return Kill(what, at, 1.0, 1)


@pytest.mark.parametrize(
    ("raw", "end"),
    [
        (TOKEN + LAST + DONE, End.ANSWER),
        (TOKEN + DONE, End.MALFORMED),
        (TOKEN + LAST, End.CUT),
        (TOKEN + LAST + DONE[:-1], End.CUT),
        (TOKEN + b"data: " + orjson.dumps(ENVELOPE) + b"\n\n", End.ERROR_FRAME),
        (TOKEN + b'data: {"error":"text"}\n\n', End.CUT),
        (b"", End.CUT),
    ],
)
def test_a_stream_is_complete_with_a_finish_reason_and_done_only(raw: bytes, end: End) -> None:
    assert stream_end(raw)[0] is end


@pytest.mark.parametrize(
    ("status", "raw", "end"),
    [
        (503, orjson.dumps(ENVELOPE), End.REFUSAL),
        (429, orjson.dumps(ENVELOPE), End.REFUSAL),
        (500, orjson.dumps(ENVELOPE), End.MALFORMED),
        (503, b'{"error":{"message":"m"}}', End.MALFORMED),
        (500, b"Internal Server Error", End.PROXY_PAGE),
        (404, b"Path not found", End.MALFORMED),
    ],
)
def test_a_refusal_is_an_envelope_with_a_proper_status(status: int, raw: bytes, end: End) -> None:
    assert refusal(status, raw)[0] is end


def test_an_unary_answer_has_usage_and_an_end() -> None:
    whole = {"choices": [{"finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    assert unary_end(orjson.dumps(whole))[0] is End.ANSWER
    for missing in ({"choices": []}, {"usage": {}}, {"choices": [{"finish_reason": None}]}):
        assert unary_end(orjson.dumps(whole | missing))[0] is End.MALFORMED
    assert unary_end(b'{"choices":')[0] is End.MALFORMED


@pytest.mark.parametrize("end", [End.HUNG, End.MALFORMED])
def test_nothing_excuses_a_request_that_hangs_or_ends_in_nonsense(end: End) -> None:
    everything = [kill(what, 0.5) for what in ("proxy", "gateway replica", "redis", "engine core")]
    assert len(violations([ended(end)], everything)) == 1


@pytest.mark.parametrize("end", [End.ANSWER, End.REFUSAL, End.ERROR_FRAME])
def test_proper_ends_need_no_excuse(end: End) -> None:
    assert violations([ended(end)], []) == []


def test_a_cut_stream_is_excused_by_the_death_of_what_carried_it_alone() -> None:
    cut = ended(End.CUT, started=10.0, until=12.0)
    assert violations([cut], [kill("gateway replica", 11.0)]) == []
    assert violations([cut], [kill("proxy", 11.0)]) == []
    assert len(violations([cut], [kill("redis", 11.0)])) == 1
    assert len(violations([cut], [kill("gateway replica", 30.0)])) == 1
    assert len(violations([cut], [])) == 1


def test_an_unary_answer_is_never_cut_by_a_replicas_death() -> None:
    cut = ended(End.CUT, started=10.0, until=12.0, stream=False)
    assert len(violations([cut], [kill("gateway replica", 11.0)])) == 1


@pytest.mark.parametrize("end", [End.NO_ANSWER, End.PROXY_PAGE])
def test_no_answer_at_all_is_excused_by_the_proxys_death_for_a_while(end: End) -> None:
    assert violations([ended(end, 10.0, 11.0)], [kill("proxy", 9.0)]) == []
    assert len(violations([ended(end, 100.0, 101.0)], [kill("proxy", 9.0)])) == 1
    assert len(violations([ended(end, 10.0, 11.0)], [kill("gateway replica", 10.5)])) == 1


def test_retry_after_is_held_against_what_the_last_one_let_in_really_waited() -> None:
    let_in = [ended(End.ANSWER, at, at + 9, queue_seconds=wait) for at, wait in ((0.0, 2.0), (5.0, 4.0))]
    told = [
        ended(End.REFUSAL, at, at, code="queue_full", retry_after_seconds=told) for at, told in ((1.0, 3.0), (6.0, 4.0))
    ]
    other = ended(End.REFUSAL, 7.0, 7.0, code="deadline_unmeetable", retry_after_seconds=1.0)
    assert told_and_true([*told, *let_in, other]) == [1.5, 1.0]


def test_what_rises_in_the_last_quarter_is_told() -> None:
    def samples(*megabytes: float) -> list[dict[str, Any]]:
        return [{"at": n, "of": {"replica": {"resident MB": mb, "tasks": 30.0}}} for n, mb in enumerate(megabytes)]

    flat = growth(samples(50, 90, 100, 100, 101, 100, 102, 101))
    assert risen(flat) == []
    leak = growth(samples(50, 90, 100, 110, 120, 130, 140, 150))
    assert risen(leak) == ["replica: resident MB rose from 105.0 to 145.0"]
