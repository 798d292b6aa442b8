"""The load of the mixed run, without a model."""

from __future__ import annotations

import random

from tests.bench.metering.mixed import PREFIX, SHARED, prompt


def test_a_share_of_the_prompts_begins_alike_and_no_two_are_the_same() -> None:
    rng = random.Random(1)
    prompts = [prompt(number, rng) for number in range(1000)]
    assert len(set(prompts)) == 1000
    alike = [text for text in prompts if text.startswith(PREFIX)]
    assert abs(len(alike) / 1000 - SHARED) < 0.05
    # two whole blocks of 128 tokens, at a token a word or more
    assert len(PREFIX.split()) >= 256
