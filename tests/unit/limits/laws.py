"""What every book of limits obeys, in memory and in Redis."""

from __future__ import annotations

import uuid
from typing import Any

from serving.limits.book import NANO, NOTHING, Ask, LimitBook, Settlement, Use, Verdict
from serving.tenancy.tenant import LimitSettings

NOON = 1_767_268_800.0
"""2026-01-01 12:00 UTC."""


class Tester:
    """A tenant that asks and settles, at times moved by hand."""

    def __init__(self, book: LimitBook, tenant: str | None = None, **limits: Any) -> None:
        self.book = book
        self.limits = LimitSettings(**limits)
        self.tenant = tenant or uuid.uuid4().hex
        self.now = NOON

    async def ask(self, tokens: int = 0, grams: float = 0.0, lifetime: float = 100.0) -> tuple[str, Verdict]:
        lease = uuid.uuid4().hex
        ask = Ask(lease, self.tenant, self.limits, tokens, round(grams * NANO), lifetime)
        return lease, await self.book.reserve(ask, self.now)

    async def settle(self, lease: str, use: Use = NOTHING) -> None:
        await self.book.settle([Settlement(lease, self.tenant, self.limits, use)], self.now)


async def requests_refill_over_a_minute(book: LimitBook) -> None:
    tester = Tester(book, requests_per_minute=3)
    left = [(await tester.ask())[1] for _ in range(4)]
    assert [verdict.refused for verdict in left] == [None, None, None, "requests"]
    assert [verdict.requests_left for verdict in left] == [2, 1, 0, 0]
    assert abs(left[3].retry_seconds - 20.0) < 1e-6
    tester.now += 19.9
    assert (await tester.ask())[1].refused == "requests"
    tester.now += 0.2
    assert (await tester.ask())[1].refused is None
    tester.now += 1e6
    assert (await tester.ask())[1].requests_left == 2


async def tokens_are_reserved_and_settled_with_the_real_figure(book: LimitBook) -> None:
    tester = Tester(book, tokens_per_minute=600)
    lease, verdict = await tester.ask(tokens=400)
    assert verdict.tokens_left == 200
    assert (await tester.ask(tokens=201))[1].refused == "tokens"
    await tester.settle(lease, Use(prompt_tokens=60, output_tokens=40))
    other, verdict = await tester.ask(tokens=0)
    assert verdict.tokens_left == 500
    await tester.settle(other, Use(output_tokens=700))
    verdict = (await tester.ask(tokens=0))[1]
    assert verdict.tokens_left == -200
    assert verdict.refused == "tokens", "what was overdrawn has to refill first"
    tester.now += 20.1
    assert (await tester.ask(tokens=0))[1].refused is None


async def a_request_larger_than_the_whole_limit_passes_when_the_bucket_is_full(book: LimitBook) -> None:
    tester = Tester(book, tokens_per_minute=600)
    lease, verdict = await tester.ask(tokens=5000)
    assert (verdict.refused, verdict.tokens_left) == (None, 0)
    await tester.settle(lease, Use(output_tokens=600))
    assert (await tester.ask(tokens=5000))[1].refused == "tokens"


async def concurrency_is_given_back(book: LimitBook) -> None:
    tester = Tester(book, concurrent_requests=2)
    first, _ = await tester.ask()
    await tester.ask()
    assert (await tester.ask())[1].refused == "concurrent"
    await tester.settle(first)
    assert (await tester.ask())[1].concurrent == 2
    tester.now += 100.1
    assert (await tester.ask())[1].concurrent == 1, "leases of the dead come back by themselves"


async def what_the_dead_held_comes_back(book: LimitBook) -> None:
    tester = Tester(book, tokens_per_minute=600, grams_per_day=1.0)
    lease, _ = await tester.ask(tokens=600, grams=0.9, lifetime=0.5)
    assert (await tester.ask(tokens=1))[1].refused == "tokens"
    tester.now += 0.5
    verdict = (await tester.ask(tokens=300, grams=0.05))[1]
    assert (verdict.refused, verdict.tokens_left) == (None, 300)
    assert verdict.held_nanograms == round(0.05 * NANO)
    await tester.settle(lease, Use(output_tokens=100))
    assert (await tester.ask())[1].tokens_left == 200, "one that was only slow is charged what it used"


async def a_hard_budget_refuses_and_a_soft_one_tells(book: LimitBook) -> None:
    hard = Tester(book, grams_per_day=1.0)
    lease, verdict = await hard.ask(grams=0.6)
    assert verdict.refused is None
    assert (await hard.ask(grams=0.6))[1].refused == "carbon_day"
    await hard.settle(lease, Use(operational_nanograms=NANO, embodied_nanograms=1))
    assert (await hard.ask())[1].refused == "carbon_day"
    hard.now += 86400
    assert (await hard.ask())[1].refused is None
    month = Tester(book, grams_per_month=1.0)
    lease, _ = await month.ask()
    await month.settle(lease, Use(operational_nanograms=2 * NANO))
    month.now += 86400
    assert (await month.ask())[1].refused == "carbon_month"
    month.now += 31 * 86400
    assert (await month.ask())[1].refused is None
    soft = Tester(book, grams_per_day=1.0, carbon="soft")
    lease, _ = await soft.ask()
    await soft.settle(lease, Use(operational_nanograms=2 * NANO))
    verdict = (await soft.ask())[1]
    assert (verdict.refused, verdict.day_nanograms) == (None, 2 * NANO)


async def a_settlement_counts_once(book: LimitBook) -> None:
    tester = Tester(book, tokens_per_minute=600)
    lease, _ = await tester.ask(tokens=100)
    for _ in range(3):
        await tester.settle(lease, Use(output_tokens=100, microjoules=7))
    assert (await tester.ask())[1].tokens_left == 500
    day, month = await book.usage(tester.tenant, tester.now)
    assert day == month == Use(output_tokens=100, microjoules=7)


async def accounts_are_a_tenants_own_and_a_days(book: LimitBook) -> None:
    tester, other = Tester(book), Tester(book)
    for number in range(3):
        await tester.settle(f"{tester.tenant}{number}", Use(prompt_tokens=number, embodied_nanograms=2**52))
    tester.now += 86400
    await tester.settle(f"{tester.tenant}x", Use(cache_hits=1))
    day, month = await book.usage(tester.tenant, tester.now)
    assert day == Use(cache_hits=1)
    assert month == Use(requests=4, prompt_tokens=3, embodied_nanograms=3 * 2**52, cache_hits=1)
    assert await book.usage(other.tenant, other.now) == (NOTHING, NOTHING)


async def a_correction_belongs_to_its_requests_day_and_frees_or_takes_budget(book: LimitBook) -> None:
    tester = Tester(book, grams_per_day=1.0, tokens_per_minute=600)
    lease, _ = await tester.ask(tokens=100)
    await tester.settle(lease, Use(output_tokens=100, microjoules=5, operational_nanograms=NANO))
    for _ in range(2):
        less = Use(requests=0, microjoules=2, operational_nanograms=-(NANO // 4))
        at = tester.now
        await book.settle([Settlement(f"{lease}-final", tester.tenant, tester.limits, less, at)], tester.now)
    used = Use(output_tokens=100, microjoules=7, operational_nanograms=NANO - NANO // 4)
    assert await book.usage(tester.tenant, tester.now) == (used, used)
    verdict = (await tester.ask(grams=0.2))[1]
    assert (verdict.refused, verdict.tokens_left) == (None, 500)
    before = tester.now
    tester.now += 86400
    late = Settlement("late-final", tester.tenant, tester.limits, Use(requests=0, embodied_nanograms=3), before)
    await tester.settle("today", Use(output_tokens=1))
    await book.settle([late], tester.now)
    day, month = await book.usage(tester.tenant, tester.now)
    assert day == Use(output_tokens=1)
    assert (month.embodied_nanograms, month.requests) == (3, 2)


LAWS = [
    requests_refill_over_a_minute,
    tokens_are_reserved_and_settled_with_the_real_figure,
    a_request_larger_than_the_whole_limit_passes_when_the_bucket_is_full,
    concurrency_is_given_back,
    what_the_dead_held_comes_back,
    a_hard_budget_refuses_and_a_soft_one_tells,
    a_settlement_counts_once,
    accounts_are_a_tenants_own_and_a_days,
    a_correction_belongs_to_its_requests_day_and_frees_or_takes_budget,
]
