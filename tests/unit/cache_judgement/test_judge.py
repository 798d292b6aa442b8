"""Guards, then score, then policy."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.calibration import Calibrator, shipped_calibration
from cache.features import FEATURES, features
from cache.guards import compare
from cache.judge import ConformalPolicy, GuardedJudge, Opinion, ThresholdPolicy
from cache.judgement import Neighbour
from cache.language import detect as detect_module
from cache.language import lexicon as lexicon_module
from cache.language.analysis import analyse
from cache.score import Score, shipped_score


@pytest.fixture(scope="module")
def judge() -> GuardedJudge:
    return GuardedJudge(ConformalPolicy(Calibrator(shipped_calibration(), 0.05)))


def test_without_neighbours_nothing_is_served(judge: GuardedJudge) -> None:
    verdict = judge.decide("anything", [])
    assert (verdict.serve, verdict.index, verdict.why) == (False, -1, "empty")


def test_a_repeat_with_manners_is_served(judge: GuardedJudge) -> None:
    verdict = judge.decide("Please, how do I reset my password?", [Neighbour("How do I reset my password?", 0.97)])
    assert verdict.serve
    assert verdict.why == "served"


def test_a_guard_refusal_scores_nothing_and_names_the_guard(judge: GuardedJudge) -> None:
    verdict = judge.decide("Where is order 12?", [Neighbour("Where is order 21?", 0.99)])
    assert (verdict.serve, verdict.score, verdict.why, verdict.guard) == (False, 0.0, "guard", "numbers")


def test_the_best_neighbour_is_served_even_if_it_is_not_the_nearest(judge: GuardedJudge) -> None:
    near, right = Neighbour("How do I reset my router?", 0.95), Neighbour("How do I reset my password?", 0.9)
    verdict = judge.decide("how do i reset my password", [near, right])
    assert (verdict.serve, verdict.index) == (True, 1)


def test_a_fixed_threshold_is_exceeded_strictly() -> None:
    text = "How do I reset my password?"
    score = GuardedJudge(ThresholdPolicy(0.0)).decide(text, [Neighbour(text, 1.0)]).score
    assert not GuardedJudge(ThresholdPolicy(score)).decide(text, [Neighbour(text, 1.0)]).serve


async def test_the_seam_gives_what_decide_gives(judge: GuardedJudge) -> None:
    neighbours = [Neighbour("How do I reset my password?", 0.97)]
    assert await judge.judge("reset my password how", neighbours) == judge.decide("reset my password how", neighbours)


async def test_the_loop_goes_round_between_any_two_neighbours_judged() -> None:
    turn = 0
    judged_in: list[int] = []

    class Noting(GuardedJudge):
        def opinion(self, stored: str, asked: str, similarity: float) -> Opinion:
            judged_in.append(turn)
            return super().opinion(stored, asked, similarity)

    async def turns() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    judge = Noting(ThresholdPolicy(0.9))
    neighbours = [Neighbour("How do I reset my password?", 0.9)] * 5
    counting = asyncio.create_task(turns())
    await asyncio.gather(*(judge.judge("reset my password how", neighbours) for _ in range(3)))
    counting.cancel()
    assert len(judged_in) == 15
    assert len(set(judged_in)) == 15


def test_once_warm_no_judgement_reads_a_table(judge: GuardedJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = (lexicon_module.lexicon, lexicon_module.frequent_words, lexicon_module.foreign_words,
              lexicon_module.detect_words, detect_module._foreign_signs, analyse)  # fmt: skip
    for function in cached:
        function.cache_clear()
    judge.warm_up()

    def unexpected(name: str) -> None:
        raise AssertionError(f"{name} is read while judging")

    monkeypatch.setattr(lexicon_module, "_read", unexpected)
    for text in (
        "How do I reset my password?",
        "Como altero a minha senha?",
        "¿Cómo cambio mi contraseña?",
        "Comment changer mon mot de passe ?",
        "Wie ändere ich mein Passwort?",
        "Hoe wijzig ik mijn wachtwoord?",
    ):
        judge.decide(text, [Neighbour(f"{text} Please.", 0.9)])


@given(st.text(max_size=300), st.text(max_size=300), st.floats(-1, 1))
def test_odd_texts_never_raise_and_scores_stay_in_range(judge: GuardedJudge, a: str, b: str, cosine: float) -> None:
    verdict = judge.decide(b, [Neighbour(a, cosine)])
    assert 0.0 <= verdict.score <= 1.0


def test_a_text_beyond_the_window_never_takes_part(judge: GuardedJudge) -> None:
    long = "the same words again " * 5000
    verdict = judge.decide(long, [Neighbour(long, 1.0)])
    assert (verdict.serve, verdict.guard) == (False, "window")


def test_more_similar_never_scores_less() -> None:
    score = shipped_score()
    pair = compare("How do I renew my passport?", "What is the process for passport renewal?")
    scores = [score(features(pair, cosine / 20)) for cosine in range(21)]
    assert scores == sorted(scores)


def test_a_score_trained_on_other_features_is_refused() -> None:
    with pytest.raises(ValueError, match="features"):
        Score.from_json({"features": list(FEATURES[1:])})


def test_two_neighbours_that_ask_different_things_contest_each_other() -> None:
    """Each alone would be served by so low a threshold; a guard keeps them apart, so one of both verdicts is wrong."""
    judge = GuardedJudge(ThresholdPolicy(0.0))
    asked = "How do I cancel my plan?"
    phone, tablet = (
        Neighbour("How do I cancel my phone plan?", 0.9),
        Neighbour("How do I cancel my tablet plan?", 0.9),
    )
    assert judge.decide(asked, [phone]).serve
    assert judge.decide(asked, [tablet]).serve
    verdict = judge.decide(asked, [phone, tablet])
    assert (verdict.serve, verdict.why) == (False, "contested")


def test_neighbours_that_agree_do_not_contest_each_other() -> None:
    judge = GuardedJudge(ThresholdPolicy(0.0))
    near = Neighbour("How can I cancel my plan?", 0.9), Neighbour("What is the way to cancel my plan?", 0.9)
    assert judge.decide("How do I cancel my plan?", near).serve


def test_the_same_words_are_served_whoever_else_is_near() -> None:
    judge = GuardedJudge(ThresholdPolicy(0.0))
    stored = Neighbour("How many moons does Saturn have?", 0.99)
    rival = Neighbour("How many moons has Saturn got?", 0.95)
    verdict = judge.decide("how many moons does saturn have", [rival, stored])
    assert verdict.serve
    assert verdict.index == 1
