from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from serving.operations.drift import Seen, Vector, Window, against_model, compare


def traffic(seed: int, size: int = 500) -> Window:
    draw = random.Random(seed)
    requests = tuple(
        Seen(
            prompt_tokens=int(draw.lognormvariate(5, 1)),
            answer_tokens=int(draw.lognormvariate(4, 0.5)),
            refused=draw.random() < 0.02,
            truncated=draw.random() < 0.1,
            hit=draw.random() < 0.3,
        )
        for _ in range(size)
    )
    mfu = tuple(draw.gauss(0.3, 0.02) for _ in range(100))
    joules = tuple(draw.gauss(0.5, 0.05) for _ in range(100))
    return Window(requests, mfu, joules)


def drifted(reference: Window, present: Window) -> set[str]:
    return {finding.what for finding in compare(reference, present) if finding.drifted}


@pytest.mark.parametrize("seed", range(1, 9))
def test_ordinary_traffic_does_not_drift(seed: int) -> None:
    findings = compare(traffic(0), traffic(seed))
    assert {f.what for f in findings if f.drifted} == set()
    assert len(findings) == 9


def test_longer_prompts_are_found_and_nothing_else() -> None:
    present = traffic(1)
    longer = tuple(replace(seen, prompt_tokens=seen.prompt_tokens * 3) for seen in present.requests)
    assert drifted(traffic(0), replace(present, requests=longer)) == {"prompt length"}


def test_a_token_more_in_each_fifth_prompt_is_beyond_chance_and_of_no_consequence() -> None:
    def prompts(longer: int) -> Window:
        return Window(tuple(Seen(39 + (number % 5 < longer), 32) for number in range(500)))

    findings = [one for one in compare(prompts(0), prompts(1)) if one.what == "prompt length"]
    assert all(one.value > one.threshold for one in findings)
    assert not any(one.drifted for one in findings)
    assert "39 -> 39.2" in findings[0].text


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"refused": True}, "refusal rate"),
        ({"truncated": True}, "truncation rate"),
        ({"hit": True}, "hit ratio"),
        ({"answer_tokens": 3}, "answer length"),
    ],
)
def test_a_fifth_of_the_requests_changed_is_found(change: dict[str, object], what: str) -> None:
    present = traffic(1)
    share = 2 if what == "answer length" else 5
    changed = tuple(
        replace(seen, **change) if number % share == 0 else seen  # type: ignore[arg-type]
        for number, seen in enumerate(present.requests)
    )
    assert drifted(traffic(0), replace(present, requests=changed)) == {what}


def test_an_engine_that_works_worse_is_found_with_by_how_much() -> None:
    reference, present = traffic(0), traffic(1)
    worse = replace(
        present,
        mfu_ratios=tuple(mfu * 0.7 for mfu in present.mfu_ratios),
        joules_per_token=tuple(joules * 1.4 for joules in present.joules_per_token),
    )
    assert drifted(reference, worse) == {"MFU", "joules per token"}
    (joules,) = (finding for finding in compare(reference, worse) if finding.what == "joules per token")
    assert joules.after / joules.before == pytest.approx(1.4, rel=0.05)
    assert joules.text.startswith("joules per token: 0.")


def vectors(seed: int, towards: float = 0.0, size: int = 300) -> tuple[Vector, ...]:
    draw = np.random.default_rng(seed)
    topics = np.random.default_rng(99).normal(size=(4, 64))
    found = topics[draw.integers(0, 4, size)] + draw.normal(size=(size, 64)) + towards * topics[0]
    return tuple((found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32))


def test_prompts_about_something_else_are_found_and_ordinary_ones_are_not() -> None:
    reference = Window((), embeddings=vectors(0))
    for seed in range(1, 9):
        assert drifted(reference, Window((), embeddings=vectors(seed))) == set()
    assert drifted(reference, Window((), embeddings=vectors(1, towards=1.0))) == {"prompt embeddings"}


def test_semantic_hits_that_are_wrong_more_often_are_found() -> None:
    reference = Window((), verified_wrong=(True,) + (False,) * 99)
    assert drifted(reference, Window((), verified_wrong=(True, True) + (False,) * 98)) == set()
    assert drifted(reference, Window((), verified_wrong=(True,) * 20 + (False,) * 80)) == {"false hits"}


def test_a_difference_that_is_sure_but_small_is_not_told() -> None:
    reference = traffic(0)
    slightly = replace(reference, mfu_ratios=tuple(mfu * 1.05 for mfu in reference.mfu_ratios))
    (mfu,) = (finding for finding in compare(reference, slightly) if finding.what == "MFU")
    assert abs(mfu.value) > mfu.threshold
    assert not mfu.drifted


def test_too_few_values_are_not_compared() -> None:
    few = Window(traffic(0).requests[:49])
    assert compare(few, traffic(1)) == []


def test_the_engine_model_is_a_reference_too() -> None:
    assert not against_model("joules per token", 0.5, [0.5, 0.55]).drifted
    found = against_model("joules per token", 0.5, [0.9, 1.1])
    assert found.drifted
    assert found.value == pytest.approx(1.0)
    with pytest.raises(ValueError, match="positive expectation"):
        against_model("MFU", 0.0, [0.1])
