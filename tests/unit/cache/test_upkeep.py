from __future__ import annotations

from typing import Any

import pytest

from cache.lookup import Stored
from cache.observer import Loss
from cache.store import StoreUnavailable
from cache.tiers import ResponseCache
from tests.unit.cache.fakes import answering, asking
from tests.unit.cache.replicas import Faulty, Kit, fill, seen


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ({"tenant": "acme"}, {("umbrella", "m"), ("umbrella", "n")}),
        ({"model": "m"}, {("acme", "n"), ("umbrella", "n")}),
        ({"everything": True}, set()),
    ],
    ids=["tenant", "model", "all"],
)
async def test_one_increment_empties_its_scope_on_every_replica(
    kit: Kit, target: dict[str, Any], left: set[tuple[str, str]]
) -> None:
    replicas = [kit.replica(), kit.replica()]
    everyone = [(tenant, model) for tenant in ("acme", "umbrella") for model in ("m", "n")]
    for tenant, model in everyone:
        await fill(replicas[0], asking(tenant=tenant, model=model))
        await replicas[1].lookup(asking(tenant=tenant, model=model))
    assert (await replicas[0].upkeep.invalidate(**target)).done
    kit.clock.seconds += 1.0
    for replica in replicas:
        hits = {(t, m) for t, m in everyone if (await replica.lookup(asking(tenant=t, model=m))).hit}
        assert hits == left


async def test_after_an_invalidation_answers_are_stored_and_found_again(cache: ResponseCache) -> None:
    await fill(cache, asking())
    await cache.upkeep.invalidate(everything=True)
    await fill(cache, asking())
    assert (await cache.lookup(asking())).hit


async def test_an_answer_computed_before_an_invalidation_is_not_served_after_it(cache: ResponseCache) -> None:
    running = await cache.lookup(asking())
    await cache.upkeep.invalidate(model="m")
    await cache.store(running, answering())
    assert not (await cache.lookup(asking())).hit


async def test_one_entry_is_removed_by_id_on_every_replica(kit: Kit) -> None:
    cache, other = kit.replica(), kit.replica()
    await fill(cache, asking())
    await fill(cache, asking("What is the capital of Spain?"))
    hit = await other.lookup(asking())
    assert hit.cache_id is not None
    assert (await cache.upkeep.invalidate(cache_id=hit.cache_id)).done
    kit.clock.seconds += 1.0
    kit.judge.cosine = 1.1
    for replica in (cache, other):
        assert not (await replica.lookup(asking())).hit
        assert (await replica.lookup(asking("What is the capital of Spain?"))).hit
    assert (await cache.upkeep.invalidate(cache_id=hit.cache_id)).why == "absent"


async def test_a_tenant_removes_only_his_own(cache: ResponseCache) -> None:
    await fill(cache, asking())
    cache_id = (await cache.lookup(asking())).cache_id
    assert cache_id is not None
    assert (await cache.upkeep.invalidate(cache_id=cache_id, owner="umbrella")).why == "not_yours"
    assert (await cache.upkeep.feedback(cache_id, tenant="umbrella", good=False)).why == "not_yours"
    assert (await cache.lookup(asking())).hit
    assert (await cache.upkeep.invalidate(cache_id=cache_id, owner="acme")).done


@pytest.mark.parametrize("targets", [{}, {"tenant": "a", "model": "m"}, {"cache_id": "x", "everything": True}])
async def test_exactly_one_target_is_named(cache: ResponseCache, targets: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one of id, tenant, model, all"):
        await cache.upkeep.invalidate(**targets)


async def test_a_thumbs_down_leaves_a_tombstone_on_every_replica(kit: Kit) -> None:
    cache, other = kit.replica(), kit.replica()
    await fill(cache, asking())
    hit = await other.lookup(asking())
    assert hit.cache_id is not None
    report = await cache.upkeep.feedback(hit.cache_id, tenant="acme", good=False)
    assert report.done
    assert report.answer is not None
    assert report.answer.text == "What is the capital of France?"
    kit.clock.seconds += 1.0
    for replica in (cache, other):
        lookup = await replica.lookup(asking())
        assert (seen(lookup), lookup.storable) == (("MISS", "tombstone"), False)
        assert await replica.store(lookup, answering()) == Stored(False, "tombstone")
        assert not (await replica.lookup(asking("what is the capital of france?"))).hit


async def test_a_run_under_way_during_a_thumbs_down_is_not_stored(cache: ResponseCache) -> None:
    await fill(cache, asking())
    running = await cache.lookup(asking(control="no-cache"))
    assert running.cache_id is not None
    await cache.upkeep.feedback(running.cache_id, tenant="acme", good=False)
    assert await cache.store(running, answering()) == Stored(False, "tombstone")
    assert not (await cache.lookup(asking())).hit


async def test_a_thumbs_up_keeps_the_entry(cache: ResponseCache) -> None:
    await fill(cache, asking())
    cache_id = (await cache.lookup(asking())).cache_id
    assert cache_id is not None
    assert (await cache.upkeep.feedback(cache_id, tenant="acme", good=True)).done
    assert (await cache.lookup(asking())).hit


async def test_a_failed_invalidation_says_so(kit: Kit) -> None:
    store = Faulty(kit.clock)
    cache = kit.replica(store=store)
    await fill(cache, asking())
    cache_id = (await cache.lookup(asking())).cache_id
    store.losing = {"advance": StoreUnavailable(Loss.READ_ONLY), "fetch": StoreUnavailable(Loss.TIMEOUT)}
    assert await cache.upkeep.invalidate(everything=True) == await cache.upkeep.invalidate(tenant="acme")
    assert (await cache.upkeep.invalidate(model="m")).why == "read_only"
    assert (await cache.upkeep.invalidate(cache_id=cache_id)).why == "timeout"


async def test_a_store_restarted_empty_does_not_revive_what_was_invalidated(kit: Kit) -> None:
    cache = kit.replica()
    await fill(cache, asking())
    await cache.upkeep.invalidate(everything=True)
    await cache.lookup(asking())
    kit.store._epochs.clear()
    kit.clock.seconds += 2.0
    assert not (await cache.lookup(asking())).hit
    await fill(cache, asking())
    assert (await cache.lookup(asking())).hit
