from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.embedded import EmbeddedRedis
from cache.observer import SilentObserver
from cache.redis_link import RedisLink
from cache.store import StoreUnavailable
from serving.errors import RateLimited
from serving.limits.book import NANO, NOTHING, Ask, LimitBook, Settlement, Use
from serving.limits.limiter import TenantLimiter
from serving.limits.memory_book import MemoryBook
from serving.limits.redis_book import RedisBook
from serving.tenancy.tenant import LimitSettings
from tests.unit.limits.laws import LAWS, NOON

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as redis:
        yield redis


def connect(server: EmbeddedRedis) -> RedisBook:
    # the budget is generous: this machine may be busy
    return RedisBook(RedisLink(server.url, observer=SilentObserver()), budget_seconds=10.0)


@pytest.fixture
async def book(server: EmbeddedRedis) -> AsyncIterator[RedisBook]:
    book = connect(server)
    yield book
    await book.close()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
async def test_law(book: RedisBook, law: Callable[[LimitBook], Awaitable[None]]) -> None:
    await law(book)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "settle", "wait"]),
        st.integers(0, 12),
        st.integers(0, 80),
        st.sampled_from([0.0, 0.25, 7.5, 61.0]),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, carbon=st.sampled_from(["hard", "soft"]))
def test_redis_and_memory_decide_alike(
    server: EmbeddedRedis, steps: list[tuple[str, int, int, float]], carbon: str
) -> None:
    limits = LimitSettings(
        requests_per_minute=5, tokens_per_minute=100, concurrent_requests=3, grams_per_day=0.5, carbon=carbon
    )

    async def compare() -> None:
        redis, memory, tenant = connect(server), MemoryBook(), uuid.uuid4().hex
        now, leases = NOON, [uuid.uuid4().hex]
        for what, pick, amount, seconds in steps:
            if what == "ask":
                leases.append(uuid.uuid4().hex)
                ask = Ask(leases[-1], tenant, limits, amount, amount * NANO // 1000, 30.0)
                here, there = await memory.reserve(ask, now), await redis.reserve(ask, now)
                assert (here.refused, here.concurrent) == (there.refused, there.concurrent)
                assert (here.day_nanograms, here.month_nanograms, here.held_nanograms) == (
                    there.day_nanograms,
                    there.month_nanograms,
                    there.held_nanograms,
                )
                assert here.tokens_left == pytest.approx(there.tokens_left, abs=1e-3)
                assert here.requests_left == pytest.approx(there.requests_left, abs=1e-3)
                assert here.retry_seconds == pytest.approx(there.retry_seconds, abs=1e-3)
            elif what == "settle":
                use = Use(output_tokens=amount, operational_nanograms=amount * NANO // 1000)
                done = [Settlement(leases[pick % len(leases)], tenant, limits, use)]
                await memory.settle(done, now)
                await redis.settle(done, now)
            now += seconds
        assert await memory.usage(tenant, now) == await redis.usage(tenant, now)
        await redis.close()

    asyncio.run(compare())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), limit=st.integers(1, 4))
def test_replicas_that_race_exceed_nothing_and_lose_nothing(server: EmbeddedRedis, seed: int, limit: int) -> None:
    """Two replicas, some requests abandoned: never more inside than allowed; the sum of settlements is that of use."""
    rng, tenant = random.Random(seed), uuid.uuid4().hex
    limits = LimitSettings(concurrent_requests=limit, tokens_per_minute=10**9)
    inside, most, used = 0, 0, NOTHING

    async def one(limiter: TenantLimiter) -> None:
        nonlocal inside, most, used
        try:
            admission = await limiter.admit(tenant, limits, tokens=rng.randrange(200), lifetime_seconds=60)
        except RateLimited:
            return
        inside += 1
        most = max(most, inside)
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        use = Use(
            output_tokens=rng.randrange(300), microjoules=rng.randrange(10**6), operational_nanograms=rng.randrange(99)
        )
        used += use
        inside -= 1
        if rng.random() < 0.5:
            await limiter.settled(admission, use, wait_seconds=10)
        else:
            limiter.settle(admission, use)

    async def race() -> None:
        replicas = [TenantLimiter(connect(server), wall=lambda: NOON) for _ in range(2)]
        for _ in range(5):
            await asyncio.gather(*(one(rng.choice(replicas)) for _ in range(8)))
        for replica in replicas:
            await replica.close()
        check = connect(server)
        assert await check.usage(tenant, NOON) == (used, used)
        full = Ask(uuid.uuid4().hex, tenant, limits, 0, 0, 1.0)
        verdict = await check.reserve(full, NOON)
        assert (verdict.concurrent, verdict.tokens_left) == (1, 10**9 - used.tokens)
        assert verdict.held_nanograms == 0
        await check.close()

    asyncio.run(race())
    assert 1 <= most <= limit


async def test_a_server_that_forgot_its_scripts_is_told_them_again(server: EmbeddedRedis, book: RedisBook) -> None:
    from redis.asyncio import Redis

    await book.settle([Settlement(uuid.uuid4().hex, "t", LimitSettings(), Use())], NOON)
    async with Redis.from_url(server.url) as raw:
        await raw.script_flush()
        await book.settle([Settlement(uuid.uuid4().hex, "t", LimitSettings(), Use())], NOON)
    assert (await book.usage("t", NOON))[0].requests == 2


@pytest.mark.parametrize("ends", ["settled", "expired"])
async def test_a_hold_that_cannot_be_read_is_let_go_like_any_other(
    server: EmbeddedRedis, book: RedisBook, ends: str
) -> None:
    from redis.asyncio import Redis

    tenant, limits = uuid.uuid4().hex, LimitSettings(concurrent_requests=1, tokens_per_minute=100)
    lease, later = uuid.uuid4().hex, NOON + 61.0
    await book.reserve(Ask(lease, tenant, limits, 10, 0, 60.0), NOON)
    async with Redis.from_url(server.url) as raw:
        await raw.hset(f"wg:{{{tenant}}}:held", lease, "-10:-5")  # type: ignore[misc]
    if ends == "settled":
        await book.settle([Settlement(lease, tenant, limits, Use(output_tokens=10))], NOON)
    verdict = await book.reserve(Ask(uuid.uuid4().hex, tenant, limits, 10, 0, 60.0), later)
    assert (verdict.refused, verdict.concurrent, verdict.tokens_left) == (None, 1, 90)
    assert verdict.held_nanograms == 0


async def test_settlements_wait_for_a_server_that_is_away() -> None:
    with EmbeddedRedis(tcp=True) as server:
        faults: list[str] = []
        failed, pause = asyncio.Event(), asyncio.Event()

        def fault(what: str) -> None:
            faults.append(what)
            failed.set()

        async def rest(seconds: float) -> None:
            await pause.wait()
            await asyncio.sleep(seconds)

        limiter = TenantLimiter(
            RedisBook(RedisLink(server.url, observer=SilentObserver()), budget_seconds=10.0),
            on_fault=fault,
            wall=lambda: NOON,
            sleep=rest,
        )
        limits = LimitSettings(concurrent_requests=1)
        admission = await limiter.admit("t", limits, tokens=1, lifetime_seconds=60)
        server.kill()
        limiter.settle(admission, Use(output_tokens=5))
        await failed.wait()
        assert limiter.unsettled == 1
        outside = await limiter.admit("t", limits, tokens=1, lifetime_seconds=60)
        assert faults[-1] == "reserve", "it fails open, and says so"
        limiter.settle(outside, Use(output_tokens=6))
        strict = TenantLimiter(RedisBook(RedisLink(server.url, observer=SilentObserver())), strict=True)
        with pytest.raises(Exception, match="quota store"):
            await strict.admit("t", limits, tokens=1, lifetime_seconds=60)
        await strict.close()
        server.start()
        pause.set()
        assert limiter._sender is not None
        await asyncio.wait_for(limiter._sender, 20)
        day, _, scope = await limiter.usage("t")
        assert (day.requests, day.output_tokens, scope) == (2, 11, "gateway")
        await limiter.close()


async def test_a_book_without_a_server_says_that_the_store_is_away() -> None:
    book = RedisBook(RedisLink("redis://127.0.0.1:1/0", observer=SilentObserver()))
    with pytest.raises(StoreUnavailable):
        await book.usage("t", NOON)
    await book.close()
