"""What every response store does. Subclasses give the fixture ``kit``."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pytest

from cache.entry import CachedAnswer
from cache.identity import Address, Epochs, Scopes
from cache.relay_store import READ_BATCHES, Batch, Followed
from cache.store import Budget, Claim, IndexSpec, Lease, LeaseState, Put, ResponseStore

SCOPES = Scopes(model="m", tenant="t" * 32)
INDEX = IndexSpec(name="idx", dimension=8, capacity=1000)
HOUR = 3600.0


class StoreKit(Protocol):
    store: ResponseStore

    async def expire(self, address: Address) -> None:
        """Let the body at an address reach the end of its life."""

    async def expire_lease(self, address: Address) -> None: ...


def budget() -> Budget:
    return Budget(10.0)


def address(number: int, partition: int = 1) -> Address:
    return Address(partition=f"{partition:032x}", exact=f"{number:064x}")


def answer(at: Address, **changes: Any) -> CachedAnswer:
    fields: dict[str, Any] = {
        "address": at,
        "tenant": "t" * 32,
        "model": "m",
        "variant": "m@1",
        "created_seconds": 1000.0,
        "expires_seconds": 4600.0,
        "body_bytes": b'{"choices":[]}',
        "text": "naïve \x00 “quoted” 'text'\n",
        "receipt": {"energy_joules": 1.5},
    }
    return CachedAnswer(**{**fields, **changes})


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(INDEX.dimension).astype(np.float32)
    return vector / np.linalg.norm(vector)


def at_cosine(base: np.ndarray, cosine: float) -> np.ndarray:
    """A unit vector at exactly this cosine from a unit vector."""
    other = unit(99) - (unit(99) @ base) * base
    other /= np.linalg.norm(other)
    return (cosine * base + np.sqrt(1 - cosine**2) * other).astype(np.float32)


class StoreContract:
    @pytest.fixture
    def store(self, kit: StoreKit) -> ResponseStore:
        return kit.store

    async def put(self, store: ResponseStore, at: Address, vector: np.ndarray | None = None, **changes: Any) -> None:
        assert await store.put(answer(at, **changes), HOUR, budget()) is Put.STORED
        if vector is not None:
            await store.add(at, INDEX, vector, HOUR, budget())

    async def names(self, store: ResponseStore, vector: np.ndarray, count: int = 5) -> list[Address]:
        found, _ = await store.nearest(address(0).partition, INDEX, vector, count, budget())
        return [item.answer.address for item in found]

    # Bodies.

    async def test_what_is_put_comes_back_equal(self, store: ResponseStore) -> None:
        await self.put(store, address(1))
        peek = await store.peek(address(1), SCOPES, budget())
        assert peek.answer == answer(address(1))
        assert await store.fetch(address(1), budget()) == answer(address(1))

    async def test_an_unknown_address_is_a_miss(self, store: ResponseStore) -> None:
        await self.put(store, address(1))
        assert (await store.peek(address(2), SCOPES, budget())).answer is None
        assert (await store.peek(address(1, partition=2), SCOPES, budget())).answer is None

    async def test_a_later_answer_replaces_an_earlier_one(self, store: ResponseStore) -> None:
        await self.put(store, address(1))
        await self.put(store, address(1), body_bytes=b"{}")
        kept = await store.fetch(address(1), budget())
        assert kept is not None
        assert kept.body_bytes == b"{}"

    async def test_a_body_ends_with_its_life(self, kit: StoreKit) -> None:
        await self.put(kit.store, address(1))
        await kit.expire(address(1))
        assert await kit.store.fetch(address(1), budget()) is None

    async def test_a_removed_body_is_gone_from_both_tiers(self, store: ResponseStore) -> None:
        await self.put(store, address(1), unit(1))
        assert await store.remove(address(1), INDEX, budget()) is True
        assert await store.fetch(address(1), budget()) is None
        assert await self.names(store, unit(1)) == []
        assert await store.remove(address(1), INDEX, budget()) is False

    async def test_nothing_is_put_where_a_tombstone_stands(self, store: ResponseStore) -> None:
        await self.put(store, address(1), unit(1))
        await store.entomb(address(1), INDEX, HOUR, budget())
        assert await store.put(answer(address(1)), HOUR, budget()) is Put.TOMBSTONE
        peek = await store.peek(address(1), SCOPES, budget())
        assert (peek.answer, peek.tombstone) == (None, True)
        assert await self.names(store, unit(1)) == []

    async def test_a_tombstone_ends_with_its_life(self, kit: StoreKit) -> None:
        await kit.store.entomb(address(1), INDEX, HOUR, budget())
        await kit.expire(address(1))
        assert await kit.store.put(answer(address(1)), HOUR, budget()) is Put.STORED

    async def test_it_tells_how_much_it_holds(self, store: ResponseStore) -> None:
        before = await store.stats(budget())
        await self.put(store, address(1))
        assert (await store.stats(budget())).keys == before.keys + 1

    # Epochs.

    async def test_epochs_start_at_zero_and_grow_by_one_in_their_scope_only(self, store: ResponseStore) -> None:
        assert await store.epochs(SCOPES, budget()) == Epochs()
        everything, model, tenant = SCOPES.fields
        assert await store.advance(model, budget()) == 1
        assert await store.advance(model, budget()) == 2
        await store.advance(tenant, budget())
        await store.advance("local", budget())
        assert await store.epochs(SCOPES, budget()) == Epochs(0, 2, 1, 1)
        assert await store.epochs(Scopes("other", "u" * 32), budget()) == Epochs(0, 0, 0, 1)
        await store.advance(everything, budget())
        assert (await store.peek(address(1), Scopes("other", "u" * 32), budget())).epochs == Epochs(1, 0, 0, 1)

    # Sightings.

    async def test_sightings_count_per_partition(self, store: ResponseStore) -> None:
        async def sight(number: int, partition: int) -> int:
            peek = await store.peek(
                address(number, partition), SCOPES, budget(), index=INDEX, count_sighting_seconds=HOUR
            )
            return peek.sightings

        assert [await sight(1, 1), await sight(2, 1), await sight(1, 2)] == [1, 2, 1]
        assert (await store.peek(address(1), SCOPES, budget(), index=INDEX)).sightings == 0

    # Similarity.

    @pytest.mark.parametrize("cosine", [1.0, 0.95, 0.9, 0.5, 0.0, -0.5, -1.0])
    async def test_similarity_is_the_cosine(self, store: ResponseStore, cosine: float) -> None:
        await self.put(store, address(1), at_cosine(unit(1), cosine))
        found, _ = await store.nearest(address(1).partition, INDEX, unit(1), 5, budget())
        assert found[0].similarity == pytest.approx(cosine, abs=2e-6)

    async def test_length_does_not_matter(self, store: ResponseStore) -> None:
        await self.put(store, address(1), 7.0 * at_cosine(unit(1), 0.8))
        found, _ = await store.nearest(address(1).partition, INDEX, 0.01 * unit(1), 5, budget())
        assert found[0].similarity == pytest.approx(0.8, abs=2e-6)

    async def test_the_most_similar_come_first_and_no_more_than_asked_for(self, store: ResponseStore) -> None:
        for number, cosine in enumerate([0.2, 0.9, 0.5, 0.7, -0.3, 0.6, 0.1]):
            await self.put(store, address(number), at_cosine(unit(1), cosine))
        assert await self.names(store, unit(1), 5) == [address(n) for n in (1, 3, 5, 2, 0)]

    async def test_the_size_of_an_index_is_told(self, store: ResponseStore) -> None:
        await self.put(store, address(1), unit(1))
        await self.put(store, address(2), unit(2))
        assert (await store.peek(address(3), SCOPES, budget(), index=INDEX)).indexed == 2
        assert (await store.peek(address(3, partition=2), SCOPES, budget(), index=INDEX)).indexed == 0

    async def test_partitions_and_indexes_do_not_see_each_other(self, store: ResponseStore) -> None:
        await self.put(store, address(1, partition=2), unit(1))
        other = IndexSpec(name="other", dimension=8, capacity=10)
        await store.put(answer(address(2)), HOUR, budget())
        await store.add(address(2), other, unit(1), HOUR, budget())
        assert await self.names(store, unit(1)) == []

    async def test_orphans_are_skipped_and_swept(self, kit: StoreKit) -> None:
        for number, cosine in enumerate([0.9, 0.8, 0.7]):
            await self.put(kit.store, address(number), at_cosine(unit(1), cosine))
        await kit.expire(address(0))
        found, orphans = await kit.store.nearest(address(0).partition, INDEX, unit(1), 2, budget())
        assert [item.answer.address for item in found] == [address(1)]
        assert orphans == 1
        assert await self.names(kit.store, unit(1), 2) == [address(1), address(2)]

    async def test_indexing_again_replaces(self, store: ResponseStore) -> None:
        await self.put(store, address(1), unit(1))
        await self.put(store, address(1), at_cosine(unit(1), 0.3))
        found, _ = await store.nearest(address(1).partition, INDEX, unit(1), 5, budget())
        assert [round(item.similarity, 4) for item in found] == [0.3]

    @pytest.mark.parametrize(
        "bad",
        [
            np.zeros(8, np.float32),
            np.full(8, np.nan, np.float32),
            np.array([np.inf] + 7 * [0.0], np.float32),
            np.ones(7, np.float32),
        ],
        ids=["zero", "nan", "infinite", "dimension"],
    )
    async def test_a_vector_without_direction_is_refused(self, store: ResponseStore, bad: np.ndarray) -> None:
        await self.put(store, address(1))
        with pytest.raises(ValueError, match="vector"):
            await store.add(address(1), INDEX, bad, HOUR, budget())
        with pytest.raises(ValueError, match="vector"):
            await store.nearest(address(1).partition, INDEX, bad, 5, budget())

    async def test_at_capacity_the_entry_nearest_its_expiry_goes_and_never_the_newcomer(
        self, store: ResponseStore
    ) -> None:
        small = IndexSpec(name="small", dimension=8, capacity=3)
        lives = {1: 500.0, 2: 100.0, 3: 900.0, 4: 50.0}
        evicted = []
        for number, life in lives.items():
            await store.put(answer(address(number)), life, budget())
            evicted.append(await store.add(address(number), small, unit(number), HOUR, budget()))
        found, _ = await store.nearest(address(1).partition, small, unit(4), 5, budget())
        assert {item.answer.address for item in found} == {address(n) for n in (1, 3, 4)}
        assert evicted == [0, 0, 0, 1]
        assert await store.fetch(address(2), budget()) is not None

    # Leases.

    async def claim(self, store: ResponseStore, number: int = 1, owner: str = "a") -> Claim:
        return await store.claim(address(number), owner, 10.0, budget())

    async def grant(self, store: ResponseStore, owner: str = "a") -> Lease:
        claim = await self.claim(store, owner=owner)
        assert claim.lease is not None
        return claim.lease

    async def test_one_holder_at_a_time(self, store: ResponseStore) -> None:
        first = await self.grant(store)
        assert await self.claim(store, owner="b") == Claim(LeaseState.HELD, holder=first)
        assert (await self.claim(store, 2, owner="b")).state is LeaseState.GRANTED
        await store.release(first, budget())
        assert (await self.claim(store, owner="b")).state is LeaseState.GRANTED

    async def test_where_there_is_a_body_nobody_needs_a_lease(self, store: ResponseStore) -> None:
        lease = await self.grant(store)
        await self.put(store, address(1))
        assert await self.claim(store, owner="b") == Claim(LeaseState.ANSWERED, answer=answer(address(1)))
        await store.release(lease, budget())
        assert (await self.claim(store, owner="b")).state is LeaseState.ANSWERED

    async def test_tokens_grow_and_a_late_leader_is_fenced_off(self, kit: StoreKit) -> None:
        late = await self.grant(kit.store)
        await kit.expire_lease(address(1))
        heir = await self.grant(kit.store, owner="b")
        assert heir.token > late.token
        assert await kit.store.renew(late, 10.0, budget()) is False
        assert await kit.store.renew(heir, 10.0, budget()) is True
        await kit.store.release(late, budget())
        assert (await self.claim(kit.store, owner="c")).state is LeaseState.HELD
        assert await kit.store.put(answer(address(1)), HOUR, budget(), token=late.token) is Put.FENCED
        assert await kit.store.put(answer(address(1)), HOUR, budget(), token=heir.token) is Put.STORED

    async def test_a_less_urgent_holder_is_overtaken_until_its_run_has_begun(self, store: ResponseStore) -> None:
        async def claim(rank: int) -> Claim:
            return await store.claim(address(1), f"rank {rank}", 10.0, budget(), rank=rank)

        slow = (await claim(2)).lease
        assert slow is not None
        assert (await claim(2)).state is LeaseState.HELD
        fast = (await claim(1)).lease
        assert fast is not None
        assert fast.token > slow.token
        assert await store.renew(slow, 10.0, budget(), rank=2) is False
        await store.release(slow, budget())
        assert (await claim(2)).state is LeaseState.HELD
        # it has begun
        assert await store.renew(fast, 10.0, budget(), rank=0) is True
        assert (await claim(0)).state is LeaseState.HELD
        assert await store.put(answer(address(1)), HOUR, budget(), token=slow.token) is Put.FENCED
        await store.release(fast, budget())
        assert (await claim(2)).state is LeaseState.GRANTED

    async def test_a_declined_lease_tells_the_waiting_to_run_for_themselves(self, kit: StoreKit) -> None:
        lease = await self.grant(kit.store)
        await kit.store.release(lease, budget(), declined_seconds=5.0)
        assert await self.claim(kit.store, owner="b") == Claim(LeaseState.DECLINED)
        await kit.expire_lease(address(1))
        assert (await self.claim(kit.store, owner="b")).state is LeaseState.GRANTED

    async def test_a_tombstone_is_no_body(self, store: ResponseStore) -> None:
        await store.entomb(address(1), None, HOUR, budget())
        assert (await self.claim(store)).state is LeaseState.GRANTED

    # Frames of a run, for other replicas.

    async def push(self, store: ResponseStore, lease: Lease, *batches: Batch, keep_from: int = 1) -> bool:
        return await store.relay.push(lease, batches, keep_from, HOUR, budget())

    async def numbers(self, store: ResponseStore, lease: Lease, after: int = 0) -> list[int]:
        return [batch.number for batch in (await store.relay.follow(lease, after, budget())).batches]

    async def test_what_is_pushed_is_read_by_whoever_knows_the_holder(self, store: ResponseStore) -> None:
        lease = await self.grant(store)
        holder = (await self.claim(store, owner="b")).holder
        assert holder is not None
        first = Batch(1, (b"data: \xe2\x82\xac\n\n", b"", b"data: \xff\n"))
        last = Batch(2, (), last=True, receipt={"joules": 1.5})
        assert await self.push(store, lease, first) is True
        assert await store.relay.follow(holder, 0, budget()) == Followed((first,), alive=True)
        assert await self.push(store, lease, last) is True
        assert await store.relay.follow(holder, 1, budget()) == Followed((last,), alive=True)
        assert await store.relay.follow(holder, 2, budget()) == Followed((), alive=True)

    async def test_the_end_outlives_the_lease(self, store: ResponseStore) -> None:
        lease = await self.grant(store)
        await self.push(store, lease, Batch(1, (b"a",), last=True))
        await store.release(lease, budget())
        assert await store.relay.follow(lease, 0, budget()) == Followed((Batch(1, (b"a",), last=True),), alive=False)

    async def test_a_run_whose_frames_are_out_is_overtaken_by_nobody(self, kit: StoreKit) -> None:
        lease = (await kit.store.claim(address(1), "slow", 10.0, budget(), rank=2)).lease
        assert lease is not None
        await self.push(kit.store, lease, Batch(1, (b"a",)))
        assert await self.claim(kit.store, owner="urgent") == Claim(LeaseState.HELD, holder=lease)
        assert await self.push(kit.store, lease, Batch(2, (b"b",))) is True
        # no longer than its life
        await kit.expire_lease(address(1))
        assert (await self.claim(kit.store, owner="urgent")).state is LeaseState.GRANTED

    @pytest.mark.parametrize("by", ["push", "renewal"])
    async def test_a_lock_that_is_gone_and_that_nobody_took_is_set_again(self, kit: StoreKit, by: str) -> None:
        lease = await self.grant(kit.store)
        await kit.expire_lease(address(1))
        assert await kit.store.relay.follow(lease, 0, budget()) == Followed((), alive=False, kept=False)
        if by == "push":
            assert await self.push(kit.store, lease, Batch(3, (b"c",))) is True
            assert await self.numbers(kit.store, lease, 2) == [3]
        else:
            assert await kit.store.renew(lease, 10.0, budget()) is True
        assert await self.claim(kit.store, owner="b") == Claim(LeaseState.HELD, holder=lease)

    async def test_a_batch_sent_twice_is_there_once(self, store: ResponseStore) -> None:
        lease = await self.grant(store)
        await self.push(store, lease, Batch(1, (b"a",)), Batch(2, (b"b",)))
        await self.push(store, lease, Batch(2, (b"another",)), Batch(3, (b"c",)))
        followed = await store.relay.follow(lease, 0, budget())
        assert [(batch.number, batch.frames) for batch in followed.batches] == [
            (1, (b"a",)),
            (2, (b"b",)),
            (3, (b"c",)),
        ]

    async def test_what_is_older_than_the_bound_is_gone(self, store: ResponseStore) -> None:
        lease = await self.grant(store)
        await self.push(store, lease, *(Batch(number, (b"x",)) for number in range(1, 5)))
        await self.push(store, lease, Batch(5, (b"x",)), keep_from=4)
        assert await self.numbers(store, lease) == [4, 5]

    async def test_one_look_reads_no_more_than_its_share(self, store: ResponseStore) -> None:
        lease = await self.grant(store)
        await self.push(store, lease, *(Batch(number, (b"x",)) for number in range(1, READ_BATCHES + 3)))
        assert len(await self.numbers(store, lease)) == READ_BATCHES
        assert await self.numbers(store, lease, READ_BATCHES) == [READ_BATCHES + 1, READ_BATCHES + 2]

    async def test_a_late_leader_pushes_nothing_and_its_heir_begins_anew(self, kit: StoreKit) -> None:
        late = await self.grant(kit.store)
        await self.push(kit.store, late, Batch(1, (b"late",)))
        await kit.expire_lease(address(1))
        heir = await self.grant(kit.store, owner="b")
        assert await self.push(kit.store, late, Batch(2, (b"late",))) is False
        assert await kit.store.relay.follow(late, 1, budget()) == Followed((), alive=False)
        assert await kit.store.relay.follow(heir, 0, budget()) == Followed((), alive=True, kept=False)

    async def test_runs_of_two_partitions_are_never_mixed(self, store: ResponseStore) -> None:
        leases = []
        for partition in (1, 2):
            claim = await store.claim(address(1, partition), "a", 10.0, budget())
            assert claim.lease is not None
            leases.append(claim.lease)
        await self.push(store, leases[0], Batch(1, (b"first",)))
        assert await self.numbers(store, leases[1]) == []

    async def test_a_wish_reaches_the_holders_replica_once(self, store: ResponseStore) -> None:
        holder, other = (Lease(address(number), 1, owner) for number, owner in ((1, "replica-7"), (2, "replica-8")))
        for lease in (holder, holder, other):
            await store.relay.wish(lease, HOUR, budget())
        assert await store.relay.wishes("another", budget()) == set()
        assert await store.relay.wishes("replica", budget()) == {"replica-7", "replica-8"}
        assert await store.relay.wishes("replica", budget()) == set()
