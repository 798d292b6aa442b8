from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from cache.observer import Loss
from cache.store import StoreUnavailable
from serving.errors import EngineUnavailable, RateLimited
from serving.limits.book import NANO, NOTHING, Ask, Settlement, Use, Verdict
from serving.limits.limiter import TenantLimiter, duration
from serving.limits.memory_book import MemoryBook
from serving.tenancy.tenant import LimitSettings
from tests.unit.limits.laws import NOON


class Wavering(MemoryBook):
    """A book that can be away, and can lose its answer after having booked."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.why = Loss.CONNECTION
        self.lose_answers = 0
        self.lose_reserves = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self.reserved = asyncio.Event()

    async def reserve(self, ask: Ask, now: float) -> Verdict:
        self._check()
        verdict = await super().reserve(ask, now)
        self.reserved.set()
        await self.answering.wait()
        if self.lose_reserves:
            self.lose_reserves -= 1
            raise StoreUnavailable(Loss.TIMEOUT)
        return verdict

    async def settle(self, settlements: Sequence[Settlement], now: float) -> None:
        self._check()
        await super().settle(settlements, now)
        if self.lose_answers:
            self.lose_answers -= 1
            raise StoreUnavailable(Loss.TIMEOUT)

    async def usage(self, tenant: str, now: float) -> tuple[Use, Use]:
        self._check()
        return await super().usage(tenant, now)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable(self.why)


class Bench:
    def __init__(self, strict: bool = False) -> None:
        self.book, self.faults, self.refusals = Wavering(), list[str](), list[tuple[str, str]]()
        self.overdrawn: list[tuple[str, str]] = []
        self.limiter = TenantLimiter(
            self.book,
            strict=strict,
            on_fault=self.faults.append,
            on_refusal=lambda tenant, limit: self.refusals.append((tenant, limit)),
            on_overdrawn=lambda tenant, limit: self.overdrawn.append((tenant, limit)),
            wall=lambda: NOON,
            sleep=lambda _: asyncio.sleep(0),
        )


async def test_a_tenant_without_limits_holds_nothing_and_is_counted_all_the_same() -> None:
    bench = Bench()
    bench.book.away = True
    admission = await bench.limiter.admit("t", LimitSettings(), tokens=5, lifetime_seconds=1)
    bench.book.away = False
    assert (admission.headers, admission.verdict) == ({}, None)
    await bench.limiter.settled(admission, Use(output_tokens=3))
    await bench.limiter.close()
    assert (await bench.limiter.usage("t"))[0].output_tokens == 3


async def test_the_headers_tell_what_is_left() -> None:
    bench = Bench()
    limits = LimitSettings(requests_per_minute=60, tokens_per_minute=600, grams_per_day=2.0, grams_per_month=5.0)
    first = await bench.limiter.admit("t", limits, tokens=100, lifetime_seconds=1)
    assert first.headers == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "10s",
        "x-carbon-budget-remaining-grams": "2",
    }
    await bench.limiter.settled(first, Use(output_tokens=100, operational_nanograms=NANO // 2), wait_seconds=5)
    second = await bench.limiter.admit("t", limits, tokens=100, lifetime_seconds=1)
    assert float(second.headers["x-carbon-budget-remaining-grams"]) == pytest.approx(1.0), "0.5 g used, 0.5 g expected"


@pytest.mark.parametrize(("tokens", "grams"), [(-1_000_000, -9.0), (0, -9.0), (-1, 0.0)])
async def test_a_reservation_below_zero_gives_nothing(tokens: int, grams: float) -> None:
    bench = Bench()
    limits = LimitSettings(tokens_per_minute=600, grams_per_day=2.0)
    first = await bench.limiter.admit("t", limits, tokens=600, lifetime_seconds=9, first_grams=lambda: 1.0)
    assert first.verdict is not None
    await bench.limiter.settled(first, Use(output_tokens=600), wait_seconds=5)
    odd = await bench.book.reserve(Ask("other", "t", limits, 0, NANO, 9.0), NOON)
    assert (odd.tokens_left, odd.held_nanograms) == (0, NANO)
    with contextlib.suppress(RateLimited):
        await bench.limiter.admit("t", limits, tokens=tokens, lifetime_seconds=9, first_grams=lambda: grams)
    after = await bench.book.reserve(Ask("last", "t", limits, 0, 0, 9.0), NOON)
    assert (after.tokens_left, after.held_nanograms) == (0, NANO)


async def test_however_long_an_answer_is_asked_for_its_grams_fit_the_books_integers() -> None:
    bench = Bench()
    limits = LimitSettings(concurrent_requests=2000, grams_per_day=2.0, carbon="soft")
    for _ in range(1000):
        admission = await bench.limiter.admit("t", limits, tokens=2**63, lifetime_seconds=9, first_grams=lambda: 1e30)
    assert admission.verdict is not None
    assert 0 < admission.verdict.held_nanograms < 2**63


async def test_a_spent_soft_budget_lets_in_and_is_counted() -> None:
    bench = Bench()
    limits = LimitSettings(grams_per_day=1.0, grams_per_month=5.0, carbon="soft")
    first = await bench.limiter.admit("t", limits, tokens=0, lifetime_seconds=1)
    assert bench.overdrawn == []
    await bench.limiter.settled(first, Use(operational_nanograms=2 * NANO), wait_seconds=5)
    second = await bench.limiter.admit("t", limits, tokens=0, lifetime_seconds=1)
    assert second.headers["x-carbon-budget-remaining-grams"] == "-1"
    assert (bench.overdrawn, bench.refusals) == ([("t", "carbon_day")], [])


@pytest.mark.parametrize(
    ("limits", "code", "retry"),
    [
        (LimitSettings(requests_per_minute=1), "rate_limit_exceeded", "60"),
        (LimitSettings(tokens_per_minute=60), "rate_limit_exceeded", "30"),
        (LimitSettings(concurrent_requests=1), "concurrent_requests_exceeded", "1"),
    ],
)
async def test_a_refusal_says_which_limit_and_when_to_come_back(limits: LimitSettings, code: str, retry: str) -> None:
    bench = Bench()
    await bench.limiter.admit("t", limits, tokens=30, lifetime_seconds=100)
    with pytest.raises(RateLimited) as refused:
        await bench.limiter.admit("t", limits, tokens=60, lifetime_seconds=100)
    assert (refused.value.code, refused.value.headers["retry-after"]) == (code, retry)
    assert bench.refusals[0][0] == "t"


@pytest.mark.parametrize(("period", "retry"), [("day", 12 * 3600), ("month", 30.5 * 86400)])
async def test_a_spent_carbon_budget_refuses_until_its_period_ends(period: str, retry: float) -> None:
    bench = Bench()
    limits = LimitSettings(**{f"grams_per_{period}": 1.0})
    admission = await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=1)
    await bench.limiter.settled(admission, Use(operational_nanograms=NANO + 1), wait_seconds=5)
    with pytest.raises(RateLimited) as refused:
        await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=1)
    assert refused.value.code == "carbon_budget_exceeded"
    assert int(refused.value.headers["retry-after"]) == retry
    assert refused.value.headers["x-carbon-budget-remaining-grams"].startswith("-")


async def test_without_the_store_each_replica_counts_for_itself() -> None:
    bench = Bench()
    bench.book.away = True
    limits = LimitSettings(concurrent_requests=1)
    held = await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=100)
    with pytest.raises(RateLimited):
        await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=100)
    bench.limiter.settle(held, Use(output_tokens=4))
    bench.book.away = False
    await bench.limiter.close()
    assert (await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=1)).book is bench.book
    assert (await bench.limiter.usage("t"))[0].output_tokens == 4
    assert bench.faults[:2] == ["reserve", "reserve"]


async def test_a_strict_gateway_refuses_without_the_store() -> None:
    bench = Bench(strict=True)
    bench.book.away = True
    with pytest.raises(EngineUnavailable) as refused:
        await bench.limiter.admit("t", LimitSettings(requests_per_minute=1), tokens=1, lifetime_seconds=1)
    assert refused.value.code == "quota_store_unavailable"
    assert (await bench.limiter.admit("t", LimitSettings(), tokens=1, lifetime_seconds=1)).headers == {}


async def test_a_client_that_goes_before_the_verdict_leaves_nothing_held() -> None:
    bench = Bench()
    bench.book.answering.clear()
    limits = LimitSettings(concurrent_requests=1, tokens_per_minute=100)
    asking = asyncio.create_task(bench.limiter.admit("t", limits, tokens=60, lifetime_seconds=100))
    await bench.book.reserved.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await bench.limiter.close()
    bench.book.answering.set()
    assert (await bench.limiter.admit("t", limits, tokens=60, lifetime_seconds=1)).verdict is not None
    assert (await bench.limiter.usage("t"))[0] == NOTHING


async def test_a_strict_gateway_gives_back_what_a_lost_verdict_holds() -> None:
    bench = Bench(strict=True)
    bench.book.lose_reserves = 1
    limits = LimitSettings(concurrent_requests=1)
    with pytest.raises(EngineUnavailable):
        await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=100)
    await bench.limiter.close()
    assert (await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=1)).verdict is not None


async def test_what_a_lost_verdict_holds_is_given_back_where_the_replica_then_refuses() -> None:
    bench = Bench()
    bench.book.away = True
    limits = LimitSettings(concurrent_requests=1)
    held = await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=100)
    bench.book.away = False
    bench.book.lose_reserves = 1
    with pytest.raises(RateLimited):
        await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=100)
    await bench.limiter.close()
    assert (await bench.limiter.admit("t", limits, tokens=1, lifetime_seconds=1)).book is bench.book
    bench.limiter.settle(held, Use())
    await bench.limiter.close()


async def test_a_store_that_was_not_asked_is_not_sent_settlements() -> None:
    bench = Bench(strict=True)
    bench.book.away = True
    bench.book.why = Loss.BREAKER_OPEN
    with pytest.raises(EngineUnavailable):
        await bench.limiter.admit("t", LimitSettings(requests_per_minute=1), tokens=1, lifetime_seconds=1)
    assert bench.limiter.unsettled == 0


async def test_a_settlement_whose_answer_is_lost_is_sent_again_and_counts_once() -> None:
    bench = Bench()
    bench.book.lose_answers = 3
    for _ in range(100):
        admission = await bench.limiter.admit("t", LimitSettings(), tokens=1, lifetime_seconds=1)
        bench.limiter.settle(admission, Use(output_tokens=1))
    await bench.limiter.close()
    assert bench.limiter.unsettled == 0
    day, _, scope = await bench.limiter.usage("t")
    assert (day.requests, day.output_tokens, scope) == (100, 100, "gateway")
    assert bench.faults == ["settle"] * 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0ms"), (0.0, "0ms"), (0.0201, "21ms"), (1.0, "1s"), (1.5, "1.5s"), (360.0, "6m0s"), (61.25, "1m1.25s")],
)
def test_durations_look_as_in_openais_headers(seconds: float, text: str) -> None:
    assert duration(seconds) == text
