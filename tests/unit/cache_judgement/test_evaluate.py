"""Pairs in, decisions out: the contract of ``wattgate cache eval``."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from cache.calibration import Calibrator, shipped_calibration
from cache.embedders import HashEmbedder
from cache.embedding import Vector
from cache.evaluate import PairsError, evaluate, read_pairs, report
from cache.judge import ConformalPolicy, GuardedJudge


class HashEncoder:
    def __init__(self) -> None:
        self._hash = HashEmbedder(256)

    def encode_now(self, texts: Sequence[str]) -> list[Vector | None]:
        return [self._hash.vector(text) for text in texts]


def judged(*pairs: dict[str, object]) -> list[tuple[bool, str]]:
    lines = [json.dumps({"id": str(number), "same_answer": True, **pair}) for number, pair in enumerate(pairs)]
    judge = GuardedJudge(ConformalPolicy(Calibrator(shipped_calibration(), 0.05)))
    return [(each.hit, each.why) for each in evaluate(read_pairs(lines), judge, HashEncoder())]


def test_equal_texts_hit_exactly() -> None:
    assert judged({"a": "How are tides made?", "b": "How are tides made?"}) == [(True, "exact")]


@pytest.mark.parametrize("given", [7, 2.5, "7"])
def test_a_decision_has_the_id_as_it_was_given(given: int | float | str) -> None:
    pairs = read_pairs([json.dumps({"id": given, "a": "Enable it", "b": "Disable it", "same_answer": False})])
    judge = GuardedJudge(ConformalPolicy(Calibrator(shipped_calibration(), 0.05)))
    (decision,) = evaluate(pairs, judge, HashEncoder())
    assert json.dumps(decision.line()["id"]) == json.dumps(given)


def test_texts_that_differ_in_unicode_form_only_are_served() -> None:
    ((hit, _),) = judged({"a": "O que é ação afirmativa?", "b": "O que e\u0301 ac\u0327a\u0303o afirmativa?"})
    assert hit


def test_a_trap_names_its_guard() -> None:
    assert judged({"a": "Enable dark mode", "b": "Disable dark mode"}) == [(False, "guard:polarity")]


def test_other_history_is_another_partition() -> None:
    question = {"role": "user", "content": "How old is he?"}
    a = [{"role": "user", "content": "Who is Pelé?"}, {"role": "assistant", "content": "A footballer."}, question]
    b = [{"role": "user", "content": "Who is Zico?"}, {"role": "assistant", "content": "A footballer."}, question]
    assert judged({"a": a, "b": b}) == [(False, "partition")]


def test_other_system_prompt_is_another_partition() -> None:
    user = {"role": "user", "content": "Say hello"}
    a, b = ([{"role": "system", "content": text}, user] for text in ("Be brief.", "Be long."))
    assert judged({"a": a, "b": b}) == [(False, "partition")]


def test_equal_history_with_a_reworded_question_is_judged() -> None:
    history = [{"role": "user", "content": "I bought shoes."}, {"role": "assistant", "content": "Good."}]
    a = [*history, {"role": "user", "content": "How do I send them back?"}]
    b = [*history, {"role": "user", "content": "how do i send them back"}]
    assert judged({"a": a, "b": b})[0][1] in ("served", "score")


def test_questions_whose_answer_changes_with_the_clock_are_not_admitted() -> None:
    assert judged({"a": "What is the weather today?", "b": "what is the weather today"}) == [
        (False, "admission:time_sensitive")
    ]


@pytest.mark.parametrize("text", ["", "   ", "\u200b", "x" * 200_000, "9" * 400])
def test_odd_texts_are_decided_without_failing(text: str) -> None:
    ((hit, why),) = judged({"a": text, "b": "How do I reset my password?"})
    assert not hit
    assert why != "internal"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object"),
        ('{"id": "x", "a": "q", "same_answer": true}', "line 2: `b` is missing"),
        ('{"id": "x", "a": "q", "b": 3, "same_answer": true}', "line 2: `b` must be"),
        ('{"id": "x", "a": "q", "b": [], "same_answer": true}', "line 2: `b` must be"),
        ('{"id": "x", "a": "q", "b": "r", "same_answer": 1}', "line 2: `same_answer`"),
        ('{"id": ' + "7" * 5000 + "}", "line 2: a number has too many digits"),
        ('{"id": NaN, "a": "q", "b": "r", "same_answer": true}', "line 2: `id` must be"),
        ('{"id": 1e999, "a": "q", "b": "r", "same_answer": true}', "line 2: `id` must be"),
        ('{"id": "x", "a": ' + 5000 * "[", "line 2: not JSON"),
        ('{"id": 1, "a": [{"role": "user", "content": ' + 150 * "[" + 150 * "]" + "}]}", "nested too deeply"),
        (b"\xff\xfe", "line 2: not UTF-8"),
    ],
)
def test_a_broken_line_is_named(line: str | bytes, named: str) -> None:
    good = '{"id": "1", "a": "q", "b": "q", "same_answer": true}'
    with pytest.raises(PairsError) as caught:
        read_pairs([good, line])
    assert named in str(caught.value)


def test_rates_have_their_denominators() -> None:
    pairs = [
        {"id": 1, "a": "q one", "b": "q one", "same_answer": True, "category": "repeat"},
        {"id": 2, "a": "Enable it", "b": "Disable it", "same_answer": False, "category": "trap", "style": "ignored"},
        {"id": 3, "a": "same", "b": "same", "same_answer": False, "category": "trap"},
    ]
    judge = GuardedJudge(ConformalPolicy(Calibrator(shipped_calibration(), 0.05)))
    result = report(evaluate(read_pairs([json.dumps(pair) for pair in pairs]), judge, HashEncoder()))
    assert (result["hits"]["count"], result["hits"]["total"]) == (1, 1)
    assert (result["wrong"]["count"], result["wrong"]["total"]) == (1, 2)
    assert (result["wrong_of_served"]["count"], result["wrong_of_served"]["total"]) == (1, 2)
    assert result["categories"]["repeat"]["wrong"]["rate"] is None
