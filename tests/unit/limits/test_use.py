"""What a request used, for its tenant's books."""

from __future__ import annotations

from typing import Any

from metering.receipt import Receipt, cost_of
from serving.call import Call
from serving.limits.book import Use
from serving.limits.desk import use_of
from serving.tenancy.tenant import LimitSettings
from serving.tenancy.usage import usage_page


def hit(receipt: Receipt) -> Use:
    call = Call("r", "t", "/v1/chat/completions", {"model": "m"}, 0.0, 60.0)
    call.hit = receipt
    gateway: Any = None
    return use_of(call, gateway)


def month(use: Use) -> dict[str, Any]:
    return dict(usage_page("t", use, use + use, LimitSettings(), "gateway", "modelled", 0.0)["month"])


def test_cost_is_added_up_to_the_thousand_millionth_and_told() -> None:
    use = hit(Receipt("r", cost=cost_of(None, 1e-9)))
    assert (use.nanocost, month(use)["cost"]) == (1, 2e-9)


def test_without_prices_there_is_no_cost_rather_than_none_of_it() -> None:
    assert "cost" not in month(hit(Receipt("r")))


def test_a_hit_that_cost_more_than_the_run_it_replaced_is_taken_off_what_was_saved() -> None:
    saved = hit(Receipt("r", avoided_joules=3.0, avoided_grams=0.003))
    lost = hit(Receipt("r", avoided_joules=-1.0, avoided_grams=-0.001))
    told = month(saved + lost)["cache"]
    assert (told["hits"], told["avoided_joules"], told["avoided_grams"]) == (4, 4.0, 0.004)
