"""The response cache on a server that fails: every lookup returns, the counters tell, it comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from cache.control import Outcome
from cache.embedded import EmbeddedRedis
from cache.lookup import Lookup, Stored
from tests.integration.cache.conftest import Replica
from tests.unit.cache.fakes import answering, asking

pytestmark = pytest.mark.redis

Make = Callable[..., Replica]
NEAR = "what is the capital of France"


@pytest.fixture
def replica(own_server: EmbeddedRedis, replicate: Make) -> Replica:
    # Nothing in process: what is found was found on the server.
    return replicate(own_server.url, local_entries=0)


@pytest.fixture
async def raw(own_server: EmbeddedRedis) -> AsyncIterator[Any]:
    client = Redis.from_url(own_server.url, socket_timeout=60.0)
    yield client
    await client.aclose()


async def look(replica: Replica, text: str = "What is the capital of France?", **changes: Any) -> Lookup:
    return await replica.cache.lookup(asking(text, **changes))


async def fill(replica: Replica, text: str = "What is the capital of France?", **changes: Any) -> Stored:
    return await replica.cache.store(await look(replica, text, **changes), answering())


async def works(replica: Replica, text: str) -> bool:
    """Stores, finds again, and finds what is near."""
    stored = await fill(replica, text)
    exact, near = await look(replica, text), await look(replica, text + " please")
    return (stored, exact.tier, near.tier) == (Stored(True, "stored", True), "exact", "semantic")


async def test_it_starts_without_a_server_and_finds_it_later(own_server: EmbeddedRedis, replicate: Make) -> None:
    own_server.kill()
    replica = replicate(own_server.url, local_entries=0)
    assert (await look(replica)).why == "connection"
    assert await fill(replica) == Stored(True, "connection")
    own_server.start()
    await replica.recover()
    assert await works(replica, "which river runs through Paris")


async def test_killed_and_restarted_empty(own_server: EmbeddedRedis, replica: Replica) -> None:
    assert await works(replica, "the first question of all")
    own_server.kill()
    whys = [(await look(replica)).why for _ in range(5)]
    assert whys == ["connection", "connection", "connection", "breaker_open", "breaker_open"]
    assert replica.observer.breakers == [True]
    await replica.probe()
    assert (await look(replica)).why == "breaker_open"
    own_server.start()
    await replica.recover()
    assert replica.observer.breakers == [True, False]
    assert not (await look(replica, "the first question of all")).hit
    assert await works(replica, "the first question of all")


async def test_a_restart_between_two_requests_costs_no_failure(own_server: EmbeddedRedis, replica: Replica) -> None:
    await fill(replica)
    own_server.kill()
    own_server.start()
    assert await works(replica, "which river runs through Paris")
    assert replica.losses() == set()


async def test_hung_costs_the_budget_three_times_and_then_nothing(own_server: EmbeddedRedis, replicate: Make) -> None:
    replica = replicate(own_server.url, local_entries=0, redis_budget_seconds=2.0)
    assert await works(replica, "the first question of all")
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        lookups = [await look(replica) for _ in range(5)]
        assert [lookup.why for lookup in lookups] == 3 * ["timeout"] + 2 * ["breaker_open"]
        for lookup in lookups[:3]:
            assert lookup.budget is not None
            assert lookup.budget.remaining_seconds <= 0.0
        # What the lookup has spent is not spent again by the store.
        assert await replica.cache.store(lookups[0], answering()) == Stored(True, "breaker_open")
        await replica.probe()
        assert (await look(replica)).why == "breaker_open"
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    await replica.recover()
    assert (await look(replica, "the first question of all")).tier == "exact"
    assert await works(replica, "which river runs through Paris")


async def test_a_burst_while_it_hangs_is_answered_too(own_server: EmbeddedRedis, replicate: Make) -> None:
    replica = replicate(own_server.url, redis_budget_seconds=0.1)
    await fill(replica)
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        lookups = await asyncio.gather(*(look(replica, f"question number {n}") for n in range(200)))
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
    assert {lookup.outcome for lookup in lookups} == {Outcome.MISS}
    await replica.recover()
    assert (await look(replica)).hit


async def test_full(replica: Replica, raw: Any) -> None:
    await fill(replica)
    await raw.config_set("maxmemory-policy", "noeviction")
    await raw.config_set("maxmemory", 1)
    assert (await look(replica)).tier == "exact"
    assert (await look(replica, NEAR)).tier == "semantic"
    assert await fill(replica, "which river runs through Paris") == Stored(True, "full")
    assert replica.losses() == {("store", "full")}
    assert replica.observer.breakers == []
    await raw.config_set("maxmemory", 0)
    assert await works(replica, "which river runs through Paris")


async def test_vectors_that_a_full_server_has_evicted_are_a_miss(replicate: Make) -> None:
    bound = 16 * 1024 * 1024
    with EmbeddedRedis(maxmemory_bytes=bound) as small:
        replica = replicate(small.url, local_entries=0)
        await fill(replica)
        async with Redis.from_url(small.url) as raw:
            (vectors,) = [key async for key in raw.scan_iter(match="*:v:*")]
            # which of those that were used in the same second goes is chance
            for number in range(2000):
                if not await raw.exists(vectors):
                    break
                await raw.set(f"filler {number}", bytes(1024 * 1024), ex=3600)
            assert await raw.exists(vectors) == 0
            assert (await raw.info("memory"))["used_memory"] <= bound
        assert (await look(replica, NEAR)).outcome is Outcome.MISS
        assert await works(replica, "which river runs through Paris")
        assert (await look(replica, NEAR)).outcome is Outcome.MISS
        assert replica.losses() == set()


async def test_a_full_server_shares_no_runs_and_stops_none(replica: Replica, raw: Any) -> None:
    await raw.config_set("maxmemory-policy", "noeviction")
    await raw.config_set("maxmemory", 1)
    async with replica.cache.turn(await look(replica)) as turn:
        assert (turn.answer, turn.lease) == (None, None)
    assert replica.losses() == {("lock", "full")}


async def test_a_read_only_replica_still_finds(replica: Replica, raw: Any) -> None:
    await fill(replica)
    history = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    await raw.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        assert (await look(replica)).tier == "exact"
        assert (await look(replica, NEAR)).tier == "semantic"
        assert (await look(replica, "and then", history=history)).why == "absent"
        assert await fill(replica, "which river runs through Paris") == Stored(True, "read_only")
        assert (await replica.cache.upkeep.invalidate(everything=True)).why == "read_only"
    finally:
        await raw.execute_command("REPLICAOF", "NO", "ONE")
    assert replica.losses() == {("search", "read_only"), ("store", "read_only"), ("invalidate", "read_only")}
    assert await works(replica, "which river runs through Paris")


VECTOR_COMMANDS = ("VADD", "VSIM", "VCARD", "VEMB", "VREM", "VRANDMEMBER")


async def test_without_vector_sets_the_exact_tier_stays(replica: Replica, raw: Any) -> None:
    # Module commands cannot be renamed away; a refusal is the nearest to a server that does not know them.
    await raw.execute_command("ACL", "SETUSER", "default", *(f"-{name.lower()}" for name in VECTOR_COMMANDS))
    await exact_tier_only(replica)
    await raw.execute_command("ACL", "SETUSER", "default", "+@all")
    assert await works(replica, "which river runs through Paris")


async def exact_tier_only(replica: Replica) -> None:
    assert await fill(replica) == Stored(True, "stored", semantic=False)
    hit = await look(replica)
    assert hit.tier == "exact"
    assert (await look(replica, NEAR)).outcome is Outcome.MISS
    assert replica.losses() == {("search", "unsupported"), ("index", "unsupported")}
    assert replica.observer.breakers == []
    assert hit.cache_id is not None
    assert (await replica.cache.upkeep.feedback(hit.cache_id, tenant="acme", good=False)).done
    assert (await look(replica)).why == "tombstone"


async def kill(server: EmbeddedRedis, raw: Any) -> None:
    server.kill()


async def hang(server: EmbeddedRedis, raw: Any) -> None:
    os.kill(server.pid, signal.SIGSTOP)


async def fill_up(server: EmbeddedRedis, raw: Any) -> None:
    await raw.config_set("maxmemory-policy", "noeviction")
    await raw.config_set("maxmemory", 1)


async def demote(server: EmbeddedRedis, raw: Any) -> None:
    await raw.execute_command("REPLICAOF", "127.0.0.1", "1")


async def empty(server: EmbeddedRedis, raw: Any) -> None:
    server.kill()
    server.start()


async def forbid(server: EmbeddedRedis, raw: Any) -> None:
    await raw.execute_command("ACL", "SETUSER", "default", "-vsim", "-vadd", "-vcard")


async def mend(server: EmbeddedRedis, raw: Any) -> None:
    if not server.running:
        server.start()
        return
    os.kill(server.pid, signal.SIGCONT)
    await raw.execute_command("REPLICAOF", "NO", "ONE")
    await raw.config_set("maxmemory", 0)
    await raw.execute_command("ACL", "SETUSER", "default", "+@all")


@pytest.mark.parametrize("fault", [kill, hang, fill_up, demote, empty, forbid], ids=lambda fault: fault.__name__)
async def test_in_the_middle_of_traffic_every_request_is_answered(
    own_server: EmbeddedRedis, replicate: Make, raw: Any, fault: Callable[[EmbeddedRedis, Any], Awaitable[None]]
) -> None:
    replica = replicate(own_server.url, redis_budget_seconds=1.0, local_entries=0)
    answered: asyncio.Queue[None] = asyncio.Queue()
    stop = asyncio.Event()

    async def client(number: int) -> None:
        turn = 0
        while not stop.is_set():
            # Nothing suspends while the breaker is open; a client on the network always does.
            await asyncio.sleep(0)
            turn += 1
            # Every other question is new, in words of its own; the others come again.
            question = turn % 14 if turn % 2 else turn
            text = " ".join(f"{word}{question}of{number}" for word in "abcdef")
            request = asking(text, tenant=f"tenant {number % 3}")
            lookup = await replica.cache.lookup(request)
            async with replica.cache.turn(lookup) as share:
                if not lookup.hit and share.answer is None:
                    await replica.cache.store(lookup, answering(f"{number % 3}"), turn=share)
            served = lookup.answer or share.answer
            if served is not None:
                assert served.body()["choices"][0]["message"]["content"] == f"{number % 3}"
            answered.put_nowait(None)

    clients = [asyncio.create_task(client(number)) for number in range(12)]

    async def more(count: int) -> None:
        """Until so many more requests were answered."""
        async with asyncio.timeout(30.0):
            for _ in range(count + answered.qsize()):
                await answered.get()

    try:
        await more(100)
        await fault(own_server, raw)
        await more(300)
        await mend(own_server, raw)
        await replica.recover()
        await more(100)
    finally:
        await mend(own_server, raw)
        stop.set()
        await asyncio.gather(*clients)
    await replica.recover()
    assert fault is empty or replica.observer.losses
    assert await works(replica, "an altogether new thing to ask")


async def test_tenants_on_one_server_see_nothing_of_each_other(replica: Replica, raw: Any) -> None:
    for tenant in ("acme", "acme'", 'ac"me', "acme}", "{acme", "acme\x00", "acme\u200b", "ａｃｍｅ", ""):
        lookup = await look(replica, tenant=tenant)
        assert (lookup.outcome, lookup.neighbours) == (Outcome.MISS, ())
        await replica.cache.store(lookup, answering(f"for {tenant}"))
        near = await look(replica, NEAR, tenant=tenant)
        assert near.answer is not None
        assert near.answer.body() == answering(f"for {tenant}")
        assert len(near.neighbours) == 1
    keys = b"\n".join([key async for key in raw.scan_iter()])
    assert b"acme" not in keys
    assert b"capital" not in keys


@pytest.mark.parametrize(
    "text",
    [
        "'\"{}*?\\ \r\n",
        "\x00\x01a",
        "FLUSHALL\r\nFLUSHALL\r\n",
        "word " * 100_000,
        "{x}:b:y",
        "🙂" * 1000,
        "cafe\u0301",
    ],
    ids=["quotes", "control", "protocol", "100k words", "braces", "emoji", "decomposed"],
)
async def test_odd_texts_come_back_as_they_went(replica: Replica, text: str) -> None:
    assert (await fill(replica, text)).stored
    assert (await look(replica, text)).tier == "exact"
    assert (await look(replica, text + " ")).outcome is not Outcome.HIT_EXACT
