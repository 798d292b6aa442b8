"""A recorded stream through the cache: what the figures count, and that labels never reach it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from cache.calibration import Calibration
from cache.judgement import Neighbour, Verdict
from cache.memory import MemoryStore
from cache.replay import Recorded, Replayed, StreamClock, StreamError, labels_of, read_stream, replay, report
from cache.settings import CacheSettings
from cache.tiers import ResponseCache
from tests.unit.cache.fakes import SECRET, Threshold, Words


def line(number: int, text: str = "How do I reset my password?", **fields: Any) -> str:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"id": number, "t": number, "tenant": "a", "messages": messages, "intent_id": "i", **fields})


async def run(*lines: str, **settings: Any) -> list[Replayed]:
    clock = StreamClock()
    parts: dict[str, Any] = {"embedder": Words(), "judge": Threshold()}
    cache = ResponseCache(
        secret=SECRET, store=MemoryStore(), settings=CacheSettings(**settings), monotonic=clock, **parts
    )
    results, _ = await replay(read_stream(lines), cache, clock)
    await cache.close()
    return results


async def test_a_hit_names_the_request_whose_answer_was_served() -> None:
    results = await run(line(1), line(2), line(3, "something quite different"))
    assert [result.line() for result in results] == [
        {"id": 1, "hit": False, "source": None, "why": "absent", "score": None, "nearest": None},
        {"id": 2, "hit": True, "source": 1, "why": "exact", "score": None, "nearest": None},
        {"id": 3, "hit": False, "source": None, "why": "below_threshold", "score": results[2].score, "nearest": 1},
    ]
    figures = report(results, 1.0)
    assert figures["hit_rate"] == pytest.approx(1 / 3)
    assert figures["lookups_per_second"] == 3.0


async def test_a_hit_of_another_intent_is_wrong() -> None:
    figures = report(await run(line(1), line(2, intent_id="other"), line(3)), 1.0)
    assert figures["hits"] == 2
    assert figures["wrong_of_hits"] == 0.5


async def test_labels_never_reach_the_cache() -> None:
    lines = [line(number, f"How do I reset my password {number % 3}?") for number in range(9)]
    relabelled = [json.dumps({**json.loads(each), "intent_id": str(index)}) for index, each in enumerate(lines)]
    first, second = await run(*lines), await run(*relabelled)
    assert [result.line() for result in first] == [result.line() for result in second]


async def test_no_cache_neither_reads_nor_writes() -> None:
    results = await run(line(1, no_cache=True), line(2), line(3, no_cache=True))
    assert [result.hit for result in results] == [False, False, False]
    assert report(results, 1.0)["no_cache_violations"] == 0


async def test_tenants_are_apart() -> None:
    results = await run(line(1), line(2, tenant="b"))
    assert [result.hit for result in results] == [False, False]


async def test_a_number_and_its_digits_are_two_tenants_and_two_intents() -> None:
    results = await run(line(1, tenant=1), line(2, tenant="1"), line(3, tenant=1.0, intent_id=5))
    assert [result.hit for result in results] == [False, False, True]
    assert results[2].wrong


async def test_what_one_half_of_a_stream_teaches_calibrates_the_other() -> None:
    texts = ["How do I reset my password?", "How do I reset a password?", "How do I reset my broken router?"]
    intents = ["password", "password", "router"]
    lines = [line(n, text, intent_id=intent) for n, (text, intent) in enumerate(zip(texts, intents, strict=True))]
    learned = labels_of(await run(*lines), "half")
    again = Calibration.from_bytes(json.dumps(learned.as_dict()).encode())
    assert again.on_your_traffic
    assert [label.right for label in again.labels] == [True, False]


async def test_of_neighbours_equally_near_the_one_judged_is_named() -> None:
    class Last(Threshold):
        async def judge(self, asked: str, neighbours: Sequence[Neighbour]) -> Verdict:
            return Verdict(False, len(neighbours) - 1, 0.5, "score")

    clock = StreamClock()
    cache = ResponseCache(
        secret=SECRET, store=MemoryStore(), embedder=Words(), judge=Last(), monotonic=clock, settings=CacheSettings()
    )
    lines = [line(1, "reset my password"), line(2, "Reset My Password"), line(3, "please reset my password")]
    results, _ = await replay(read_stream(lines), cache, clock)
    judged = [result.nearest.id for result in results if result.nearest is not None]
    assert judged == [1, 2]


async def test_an_answer_lives_on_the_streams_clock() -> None:
    results = await run(line(1), line(2, t=50), line(3, t=101.5), ttl_seconds=100.0)
    assert [result.hit for result in results] == [False, True, False]


def test_violations_are_counted_where_they_are() -> None:
    mine = Recorded("1", 0.0, "a", [], "i")
    theirs = Recorded("2", 1.0, "b", [], "i", no_cache=True)
    figures = report([Replayed(theirs, True, mine, "exact")], 1.0)
    assert (figures["no_cache_violations"], figures["tenant_violations"]) == (1, 1)


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: expected an object"),
        (line(1).replace('"t"', '"u"'), "line 2: `t` is missing"),
        ('{"id": ' + "7" * 5000 + "}", "line 2: a number has too many digits"),
        (line(1, messages=[{"content": "x"}]).replace('"x"', 150 * "[" + 150 * "]"), "nested too deeply"),
        (line(1).replace('"t": 1', '"t": 1' + 400 * "0"), "line 2: `t` must be a number"),
        (line(float("nan")), "line 2: `id`"),  # type: ignore[arg-type]
        (line(1, tenant=float("inf")), "line 2: `tenant`"),
        (line(1, t="noon"), "line 2: `t` must be a number"),
        (line(1, t=float("nan")), "line 2: `t` must be a number"),
        (line(1, messages="Hi"), "line 2: `messages`"),
        (line(1, no_cache=3), "line 2: `no_cache`"),
        (line(1, tenant=None), "line 2: `tenant`"),
        (line(2, t=0), "line 2: `t` 0 lies before the 1 "),
        (b"\xff\xfe", "line 2: not UTF-8"),
    ],
)
def test_a_broken_line_is_named_with_its_number(broken: Any, named: str) -> None:
    with pytest.raises(StreamError, match=named.replace("`", ".")):
        read_stream([line(1), broken])


async def test_odd_text_is_answered_like_any_other() -> None:
    odd = ["", "  ", "\ud800", "\x00", "é" * 5000, "Qual é a capital do Japão? ✅", "{}'\"$@"]
    lines = [line(number, text) for number, text in enumerate(odd)]
    lines.append(line(99, messages=[{"role": "user", "content": None}, {"content": [{"type": "image_url"}]}]))
    assert [result.hit for result in await run(*lines)] == [False] * len(lines)
