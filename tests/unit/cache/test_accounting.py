from __future__ import annotations

from typing import Any

import orjson
import pytest

from cache.accounting import Avoided, avoided
from tests.unit.cache.store_contract import address, answer

USAGE = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
RECEIPT = {
    "energy_joules": {"accelerator": 5.0, "host": 2.0, "idle": 1.0, "overhead": 2.0, "total": 10.0},
    "operational_grams": 0.004,
    "embodied_grams": 0.001,
}


def of(receipt: dict[str, Any] | None = RECEIPT, usage: Any = USAGE, joules: Any = 0.5, grams: Any = 0.002) -> Avoided:
    stored = answer(address(1), body_bytes=orjson.dumps({"usage": usage}), receipt=receipt)
    return avoided(stored, lookup_joules=joules, lookup_grams=grams)


def test_what_was_avoided_is_the_original_minus_the_lookup() -> None:
    saved = of()
    assert (saved.prompt_tokens, saved.completion_tokens, saved.tokens) == (100, 40, 140)
    assert (saved.joules, saved.grams) == (pytest.approx(9.5), pytest.approx(0.003))


def test_a_lookup_dearer_than_the_run_is_a_loss() -> None:
    assert of(joules=12.0).joules == pytest.approx(-2.0)


def test_the_total_is_summed_where_it_is_missing() -> None:
    assert of({"energy_joules": {"accelerator": 5.0, "host": None, "idle": 1.0}}).joules == pytest.approx(5.5)


@pytest.mark.parametrize(
    "receipt",
    [None, {}, {"energy_joules": None, "operational_grams": None}, {"energy_joules": 3.0, "operational_grams": 1.0}],
)
def test_unknown_figures_stay_unknown(receipt: dict[str, Any] | None) -> None:
    assert (of(receipt).joules, of(receipt).grams) == (None, None)


def test_an_unknown_cost_of_the_lookup_makes_the_difference_unknown() -> None:
    assert (of(joules=None).joules, of(grams=None).grams) == (None, None)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, "many"])
def test_without_usage_no_tokens_are_claimed(usage: Any) -> None:
    assert of(usage=usage).tokens == 0
