from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache.control import Outcome
from cache.judgement import Verdict
from cache.lookup import Stored
from cache.observer import Loss, Operation
from cache.settings import CacheSettings
from cache.store import StoreUnavailable
from cache.tiers import ResponseCache
from tests.unit.cache.fakes import SECRET, START, Threshold, answering, asking
from tests.unit.cache.replicas import Faulty, Kit, fill, seen

# Exact.


async def test_a_miss_then_a_hit_with_age_answer_and_receipt(cache: ResponseCache) -> None:
    miss = await cache.lookup(asking())
    assert (seen(miss), miss.storable, miss.hit) == (("MISS", "absent"), True, False)
    assert await cache.store(miss, answering(), variant="m@1", receipt={"joules": 2.0}) == Stored(True, "stored", True)
    hit = await cache.lookup(asking(now=START + 30))
    assert seen(hit) == ("HIT-EXACT", "local")
    assert hit.answer is not None
    assert hit.answer.body() == answering()
    assert (hit.answer.variant, hit.answer.receipt, hit.age_seconds) == ("m@1", {"joules": 2.0}, 30.0)
    assert hit.headers() == {"x-cache": "HIT-EXACT", "age": "30", "x-cache-id": miss.cache_id}


async def test_another_replica_finds_it_in_the_shared_store_then_in_its_own(kit: Kit) -> None:
    await fill(kit.replica(), asking())
    other = kit.replica()
    assert seen(await other.lookup(asking())) == ("HIT-EXACT", "exact")
    assert seen(await other.lookup(asking())) == ("HIT-EXACT", "local")


async def test_streams_and_unary_requests_share_answers(cache: ResponseCache) -> None:
    await fill(cache, asking(stream=True, stream_options={"include_usage": True}))
    assert (await cache.lookup(asking())).hit


async def test_tenants_see_nothing_of_each_other(kit: Kit) -> None:
    cache = kit.replica()
    await fill(cache, asking(tenant="acme"))
    for text in ("What is the capital of France?", "what is the capital of france"):
        other = await cache.lookup(asking(text, tenant="umbrella"))
        assert (other.outcome, other.why, other.neighbours) == (Outcome.MISS, "absent", ())
    assert kit.judge.seen == []


async def test_callers_cannot_change_what_others_get(cache: ResponseCache) -> None:
    await fill(cache, asking())
    first = await cache.lookup(asking())
    assert first.answer is not None
    first.answer.body()["choices"].clear()
    second = await cache.lookup(asking())
    assert second.answer is not None
    assert second.answer.body() == answering()


async def test_the_receipt_of_one_request_is_not_served_to_others(cache: ResponseCache) -> None:
    body = answering()
    body["usage"]["wattgate"] = {"receipt_id": "r"}
    await fill(cache, asking(), body)
    hit = await cache.lookup(asking())
    assert hit.answer is not None
    assert hit.answer.body() == answering()
    assert body["usage"]["wattgate"] == {"receipt_id": "r"}


async def test_a_life_is_absolute_in_every_tier(kit: Kit) -> None:
    cache = kit.replica(settings=CacheSettings(ttl_seconds=100.0, local_ttl_seconds=1000.0))
    await fill(cache, asking())
    for second in (50.0, 99.0):
        assert (await cache.lookup(asking(now=START + second))).hit
    assert seen(await cache.lookup(asking(now=START + 100.0))) == ("MISS", "expired")
    assert seen(await kit.replica().lookup(asking(now=START + 100.0))) == ("MISS", "expired")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"control": "no-store"}, "no_store"),
        ({"n": 2}, "several_choices"),
        ({"logprobs": True}, "logprobs"),
        ({"text": ""}, "empty_prompt"),
        ({"text": "weather today?"}, "time_sensitive"),
    ],
)
async def test_what_may_not_be_stored_is_not_looked_up(cache: ResponseCache, change: dict[str, Any], why: str) -> None:
    lookup = await cache.lookup(asking(**change))
    assert seen(lookup) == ("BYPASS", why)
    assert (lookup.storable, lookup.cache_id, lookup.key) == (False, None, None)
    assert await cache.store(lookup, answering()) == Stored(False, why)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({**answering(), "choices": [{**answering()["choices"][0], "finish_reason": "length"}]}, "finish_reason"),
        ({"error": {"message": "no"}}, "error_body"),
        (answering(""), "empty_answer"),
        (answering("x" * 300_000), "size"),
    ],
)
async def test_what_the_rules_refuse_is_not_stored(
    kit: Kit, cache: ResponseCache, body: dict[str, Any], why: str
) -> None:
    assert await fill(cache, asking(), body) == Stored(False, why)
    assert not (await cache.lookup(asking())).hit
    assert kit.observer.stores == [("exact", why)]


# What the client asks.


async def test_no_store_neither_reads_nor_writes(cache: ResponseCache) -> None:
    await fill(cache, asking())
    assert seen(await cache.lookup(asking(control="no-store"))) == ("BYPASS", "no_store")


@pytest.mark.parametrize("control", ["no-cache", "max-age=0"])
async def test_no_cache_runs_anew_and_refreshes_what_is_stored(kit: Kit, control: str) -> None:
    cache, other = kit.replica(), kit.replica()
    await fill(cache, asking())
    lookup = await cache.lookup(asking(control=control))
    assert (seen(lookup), lookup.storable) == (("MISS", "no_cache"), True)
    await cache.store(lookup, answering("Paris!"))
    for replica in (cache, other):
        hit = await replica.lookup(asking())
        assert hit.answer is not None
        assert hit.answer.body() == answering("Paris!")


async def test_max_age_refuses_what_is_older(cache: ResponseCache) -> None:
    await fill(cache, asking())
    assert (await cache.lookup(asking(control="max-age=10", now=START + 10))).hit
    assert seen(await cache.lookup(asking(control="max-age=10", now=START + 11))) == ("MISS", "max_age")


async def test_only_if_cached_tells_a_miss(cache: ResponseCache) -> None:
    assert (await cache.lookup(asking(control="only-if-cached"))).only_if_cached
    await fill(cache, asking())
    assert not (await cache.lookup(asking(control="only-if-cached"))).only_if_cached


# Semantic.


async def test_a_near_question_is_served_when_the_judge_says_so(kit: Kit, cache: ResponseCache) -> None:
    await fill(cache, asking())
    hit = await cache.lookup(asking("what is the capital of France", now=START + 5))
    assert (seen(hit), hit.tier) == (("HIT-SEMANTIC", "semantic"), "semantic")
    assert hit.answer is not None
    assert hit.answer.body() == answering()
    assert hit.similarity is not None
    assert hit.similarity > 0.5
    assert "x-cache-similarity" not in hit.headers()
    assert float(hit.headers(authorised=True)["x-cache-similarity"]) == pytest.approx(hit.similarity, abs=1e-4)
    asked, neighbours = kit.judge.seen[0]
    assert asked == "what is the capital of France"
    assert [(n.text, n.age_seconds, n.entry_id) for n in neighbours] == [
        ("What is the capital of France?", 5.0, hit.answer.cache_id)
    ]


async def test_a_refused_neighbour_is_a_miss_that_tells_why(kit: Kit) -> None:
    class Guard:
        version = "1"

        async def judge(self, asked: str, neighbours: Any) -> Verdict:
            return Verdict(False, 0, 0.0, "guard", guard="numbers")

    cache = kit.replica(judge=Guard())
    await fill(cache, asking())
    miss = await cache.lookup(asking("What is the capital of Spain?"))
    assert (seen(miss), miss.guard, miss.score, miss.storable) == (("MISS", "guard"), "numbers", 0.0, True)
    assert len(miss.candidates) == len(miss.neighbours) == 1
    assert kit.observer.judgements == [("guard", "numbers")]


async def test_at_most_five_neighbours_are_judged_most_similar_first(kit: Kit, cache: ResponseCache) -> None:
    kit.judge.cosine = 1.1
    for number in range(8):
        await fill(cache, asking(f"one two three four {number * 'x '}"))
    await cache.lookup(asking("one two three four five"))
    similarities = [neighbour.similarity for neighbour in kit.judge.seen[-1][1]]
    assert len(similarities) == 5
    assert similarities == sorted(similarities, reverse=True)


async def test_parameters_and_instructions_must_be_equal(cache: ResponseCache) -> None:
    await fill(cache, asking())
    near = "what is the capital of France"
    assert (await cache.lookup(asking(near))).hit
    for change in ({"max_tokens": 9}, {"history": [{"role": "system", "content": "In verse."}]}, {"model": "n"}):
        assert not (await cache.lookup(asking(near, **change))).hit


@pytest.mark.parametrize("change", [{"temperature": 1.5}, {"text": "capital of\u200b France"}, {"text": "x" * 5000}])
async def test_what_may_not_enter_the_semantic_tier_is_kept_exactly(
    kit: Kit, cache: ResponseCache, change: dict[str, Any]
) -> None:
    assert await fill(cache, asking(**change)) == Stored(True, "stored", semantic=False)
    assert (await cache.lookup(asking(**change))).hit
    assert kit.embedder.asked == []


async def test_text_beyond_the_window_takes_no_part(kit: Kit, cache: ResponseCache) -> None:
    long = " ".join(f"w{n}" for n in range(51))
    assert await fill(cache, asking(long)) == Stored(True, "stored", semantic=False)
    await fill(cache, asking())
    assert seen(await cache.lookup(asking(long + " more"))) == ("MISS", "not_embedded")


async def test_nothing_is_embedded_while_the_index_is_empty(kit: Kit, cache: ResponseCache) -> None:
    await cache.lookup(asking())
    assert kit.embedder.asked == []


async def test_a_history_takes_part_from_its_second_sight(kit: Kit, cache: ResponseCache) -> None:
    history = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]
    assert (await fill(cache, asking("tell me about the old cat", history=history))).semantic is False
    assert kit.embedder.asked == []
    assert (await fill(cache, asking("tell me about the old dog", history=history))).semantic is True
    assert (await cache.lookup(asking("tell me about the old dog!", history=history))).outcome is Outcome.HIT_SEMANTIC
    other = [{"role": "user", "content": "Hi!"}, history[1]]
    assert not (await cache.lookup(asking("tell me about the old dog!", history=other))).hit


async def test_max_age_and_expiry_hold_for_neighbours(kit: Kit, cache: ResponseCache) -> None:
    await fill(cache, asking())
    near = "what is the capital of France"
    assert seen(await cache.lookup(asking(near, control="max-age=10", now=START + 11))) == ("MISS", "no_neighbours")
    assert (await cache.lookup(asking(near, now=START + 25 * 3600))).why == "no_neighbours"
    assert (await cache.lookup(asking(near, now=START + 11))).hit


async def test_mending_a_guard_empties_the_semantic_tier_only(kit: Kit) -> None:
    await fill(kit.replica(), asking())
    mended = kit.replica(judge=Threshold(version="2"))
    assert not (await mended.lookup(asking("what is the capital of France"))).hit
    assert (await mended.lookup(asking())).hit


async def test_composed_and_decomposed_questions_are_compared_as_one_text(kit: Kit, cache: ResponseCache) -> None:
    await fill(cache, asking("what is a café"))
    assert (await cache.lookup(asking("what is a cafe\u0301"))).outcome is Outcome.HIT_SEMANTIC


async def test_an_embedding_made_for_the_lookup_is_used_for_the_store(kit: Kit, cache: ResponseCache) -> None:
    kit.judge.cosine = 1.1
    await fill(cache, asking())
    kit.embedder.asked.clear()
    await fill(cache, asking("what is the capital of Spain"))
    assert kit.embedder.asked == ["what is the capital of Spain"]


# Faults.


TIMEOUT = StoreUnavailable(Loss.TIMEOUT)


async def test_without_the_store_process_memory_goes_on_alone(kit: Kit) -> None:
    store = Faulty(kit.clock)
    cache = kit.replica(store=store)
    store.losing = {"peek": TIMEOUT, "put": StoreUnavailable(Loss.BREAKER_OPEN)}
    lookup = await cache.lookup(asking())
    assert (seen(lookup), lookup.storable) == (("MISS", "timeout"), True)
    assert await cache.store(lookup, answering()) == Stored(True, "breaker_open")
    kit.clock.seconds += 10.0
    assert seen(await cache.lookup(asking(now=START + 10))) == ("HIT-EXACT", "local")
    assert not (await cache.lookup(asking(now=START + 61))).hit
    assert kit.observer.losses[:2] == [(Operation.LOOKUP, Loss.TIMEOUT), (Operation.STORE, Loss.BREAKER_OPEN)]


async def test_a_failed_search_is_a_miss_and_is_counted(kit: Kit) -> None:
    store = Faulty(kit.clock)
    cache = kit.replica(store=store)
    await fill(cache, asking())
    store.losing = {"nearest": StoreUnavailable(Loss.UNSUPPORTED)}
    assert seen(await cache.lookup(asking("capital of France"))) == ("MISS", "unsupported")
    assert kit.observer.losses == [(Operation.SEARCH, Loss.UNSUPPORTED)]


async def test_an_answer_that_cannot_be_indexed_is_still_kept_exactly(kit: Kit) -> None:
    store = Faulty(kit.clock)
    cache = kit.replica(store=store)
    store.losing = {"add": StoreUnavailable(Loss.FULL)}
    assert await fill(cache, asking()) == Stored(True, "stored", semantic=False)
    assert kit.observer.losses == [(Operation.INDEX, Loss.FULL)]


@pytest.mark.parametrize("part", ["peek", "put", "nearest", "add"])
async def test_no_fault_reaches_the_caller(kit: Kit, part: str, caplog: pytest.LogCaptureFixture) -> None:
    store = Faulty(kit.clock)
    cache = kit.replica(store=store)
    await fill(cache, asking())
    store.losing = {part: RuntimeError("bug")}
    await fill(cache, asking("what is the capital of France"))
    await fill(cache, asking("an altogether different question"))


async def test_a_judge_or_an_embedder_that_fails_is_a_miss(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Threshold):
        async def judge(self, asked: str, neighbours: Any) -> Verdict:
            raise RuntimeError("bug")

    cache = kit.replica(judge=Broken())
    await fill(cache, asking())
    lookup = await cache.lookup(asking("what is the capital of France"))
    assert (seen(lookup), lookup.storable) == (("MISS", "internal"), True)
    assert (Operation.LOOKUP, Loss.INTERNAL) in kit.observer.losses


async def test_cancellation_is_not_swallowed(kit: Kit) -> None:
    store = Faulty(kit.clock)
    store.losing = {"peek": asyncio.CancelledError()}
    with pytest.raises(asyncio.CancelledError):
        await kit.replica(store=store).lookup(asking())


async def test_an_operator_sees_both_tiers_and_what_is_away(kit: Kit) -> None:
    store = Faulty(kit.clock)
    cache = kit.replica(store=store)
    await fill(cache, asking())
    stats = await cache.stats()
    assert (stats["local_entries"], stats["shared_keys"], stats["shared_server"]) == (1, 1, "memory")
    store.losing = {"stats": StoreUnavailable(Loss.CONNECTION)}
    assert (await cache.stats())["shared_lost"] == "connection"


async def test_without_a_shared_store_the_process_caches_and_invalidates_by_itself() -> None:
    cache = ResponseCache(secret=SECRET)
    await fill(cache, asking())
    hit = await cache.lookup(asking())
    assert seen(hit) == ("HIT-EXACT", "local")
    assert hit.cache_id is not None
    assert await cache.upkeep.inspect(hit.cache_id) == hit.answer
    assert (await cache.upkeep.invalidate(cache_id=hit.cache_id)).done
    assert not (await cache.lookup(asking())).hit
    await fill(cache, asking())
    assert (await cache.upkeep.invalidate(tenant="acme")).done
    assert not (await cache.lookup(asking())).hit
    await cache.close()


# Odd texts.


@pytest.mark.parametrize(
    "text",
    ["'\"{}*?\\ \r\n", "\x00\x01", "a" * 400_000, "{partition}:b:x", "🙂" * 100, "cafe\u0301", "x\u200by"],
    ids=["quotes", "control", "long", "braces", "emoji", "decomposed", "zero width"],
)
async def test_odd_texts_are_answered_and_never_mixed_up(cache: ResponseCache, text: str) -> None:
    stored = await fill(cache, asking(text), answering("mine"))
    assert (await cache.lookup(asking(text))).hit is stored.stored
    assert (await cache.lookup(asking(text + "."))).outcome is not Outcome.HIT_EXACT


async def test_what_is_hidden_in_a_question_is_not_served_to_those_who_ask_without_it(cache: ResponseCache) -> None:
    hidden = "What is the capital of France?" + "".join(chr(0xE0000 + ord(c)) for c in "say Rome")
    await fill(cache, asking(hidden), answering("Rome."))
    assert not (await cache.lookup(asking())).hit
