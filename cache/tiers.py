"""The response cache: in-process exact, shared exact, semantic; the one class that the gateway calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import orjson

from cache.admission import Refusal, refuse_answer, refuse_request
from cache.control import Outcome
from cache.embedding import Embedder
from cache.entry import CachedAnswer
from cache.epochs import EpochBook
from cache.identity import Epochs, Identity, Scopes, TenantHasher, identify
from cache.judgement import Judge
from cache.lease import Leases, LeaseSettings, Rank, Turn, most_urgent
from cache.local import LocalTier
from cache.lookup import CacheRequest, Lookup, Stored
from cache.memory import MemoryStore
from cache.observer import CacheObserver, Loss, Operation, SilentObserver
from cache.relay import Outbound, Sleep
from cache.semantic import SemanticTier
from cache.settings import CacheSettings
from cache.single_flight import Flight, SingleFlight
from cache.store import Budget, IndexSpec, Peek, Put, ResponseStore, StoreUnavailable
from cache.upkeep import Upkeep

log = logging.getLogger(__name__)


class ResponseCache:
    """Looks up and stores; ``upkeep`` takes out. No fault of the store, the embedder or the judge reaches the caller.

    ``store`` None: the in-process tier alone. ``embedder`` or ``judge`` None: no semantic tier.
    """

    def __init__(
        self,
        *,
        secret: bytes,
        store: ResponseStore | None = None,
        settings: CacheSettings | None = None,
        embedder: Embedder | None = None,
        judge: Judge | None = None,
        observer: CacheObserver | None = None,
        lease_settings: LeaseSettings | None = None,
        sleep: Sleep = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or CacheSettings()
        self.observer: CacheObserver = observer or SilentObserver()
        # Without a shared store the epochs and leases of this process are still needed; bodies are not.
        self.shared: ResponseStore = MemoryStore(max_entries=0) if store is None else store
        self._semantic = (
            SemanticTier(store, embedder, judge, self.settings, self.observer)
            if store is not None and embedder is not None and judge is not None
            else None
        )
        self.flights = SingleFlight()
        self._leases = Leases(
            self.shared,
            observer=self.observer,
            budget=self._budget,
            settings=lease_settings,
            sleep=sleep,
            monotonic=monotonic,
        )
        self._hash_tenant = TenantHasher(secret)
        self._monotonic = monotonic
        self._local = LocalTier(
            entries=self.settings.local_entries,
            size_bytes=self.settings.local_bytes,
            ttl_seconds=self.settings.local_ttl_seconds,
        )
        self._epochs = EpochBook(check_seconds=self.settings.epoch_check_seconds)
        self.upkeep = Upkeep(
            shared=self.shared,
            local=self._local,
            epochs=self._epochs,
            index=lambda: self.index,
            hash_tenant=self._hash_tenant,
            tombstone_seconds=self.settings.tombstone_seconds,
            observer=self.observer,
            budget=self._budget,
        )

    @property
    def index(self) -> IndexSpec | None:
        """The semantic tier's, where there is one."""
        return self._semantic.index if self._semantic else None

    # Looking up.

    async def lookup(self, request: CacheRequest) -> Lookup:
        """Find an answer that may be served. Never raises but for cancellation."""
        started = self._monotonic()
        result = Lookup(request, Outcome.BYPASS, why="", started_seconds=started)
        try:
            await self._look(result)
        except Exception:
            log.exception("cache lookup failed")
            self.observer.lost(Operation.LOOKUP, Loss.INTERNAL)
            result.outcome, result.why, result.answer, result.tier = Outcome.MISS, Loss.INTERNAL.value, None, "none"
        result.lookup_seconds = self._monotonic() - started
        self.observer.looked_up(result.outcome, result.tier, result.why, result.lookup_seconds)
        return result

    async def _look(self, result: Lookup) -> None:
        request = result.request
        refusal = Refusal.NO_STORE if request.cache_control.no_store else refuse_request(request.path, request.payload)
        if refusal is not None:
            result.why = refusal.value
            return
        identity = identify(
            tenant=self._hash_tenant(request.tenant),
            path=request.path,
            payload=request.payload,
            model=request.model,
            variants=request.variants,
        )
        result.identity = identity
        result.address = identity.address(self._epochs.known(identity.scopes))
        result.budget = Budget(self.settings.redis_budget_seconds, self._monotonic)
        result.outcome, result.why, result.storable = Outcome.MISS, "absent", True
        if self._serve_local(result, checked=self._epochs.recent(identity.scopes, self._monotonic())):
            return
        index = self._semantic.index_for(request, identity) if self._semantic else None
        try:
            peek = await self._peek(result, identity, result.budget, index)
        except StoreUnavailable as unavailable:
            self.observer.lost(Operation.LOOKUP, unavailable.loss)
            result.why = unavailable.loss.value
            # Cut off from invalidations: process memory goes on alone, for its short time to live.
            self._serve_local(result, checked=True)
            return
        if peek.tombstone:
            self._local.drop(result.address.exact)
            result.why, result.storable = "tombstone", False
            return
        if self._serve(result, peek.answer, tier="exact") or self._serve_local(result, checked=True):
            return
        if self._semantic is None or index is None:
            return
        result.index_allowed = not identity.conversation or peek.sightings >= self.settings.conversation_sightings
        if result.index_allowed and peek.indexed and identity.text and not self._unwanted(request):
            answer = await self._semantic.search(result, identity.text, result.address.partition, result.budget)
            self._serve(result, answer, tier="semantic")

    def _serve_local(self, result: Lookup, *, checked: bool) -> bool:
        if not checked or result.address is None:
            return False
        return self._serve(result, self._local.get(result.address.exact, result.request.now), tier="local")

    def _serve(self, result: Lookup, answer: CachedAnswer | None, *, tier: str) -> bool:
        request = result.request
        if answer is None:
            return False
        if self._unwanted(request):
            result.why = "no_cache"
            return False
        if not answer.fresh(request.now, request.cache_control.max_age_seconds):
            result.why = "max_age" if answer.fresh(request.now) else "expired"
            return False
        result.answer, result.tier, result.why = answer, tier, tier
        result.outcome = Outcome.HIT_SEMANTIC if tier == "semantic" else Outcome.HIT_EXACT
        result.age_seconds = max(0.0, request.now - answer.created_seconds)
        if tier == "exact":
            self._local.put(answer, request.now)
        return True

    @staticmethod
    def _unwanted(request: CacheRequest) -> bool:
        return request.cache_control.no_cache or request.cache_control.max_age_seconds == 0

    async def _peek(self, result: Lookup, identity: Identity, budget: Budget, index: IndexSpec | None) -> Peek:
        """The store's view under the epochs in force; asked a second time only where they had moved on."""
        sighting = self.settings.sighting_ttl_seconds if index and identity.conversation else None
        address = identity.address(self._epochs.known(identity.scopes))
        for _ in range(2):
            peek = await self.shared.peek(
                address, identity.scopes, budget, index=index, count_sighting_seconds=sighting
            )
            result.address = identity.address(self._learn(identity.scopes, peek.epochs))
            if address == result.address:
                return peek
            address = result.address
        return replace(peek, answer=None, tombstone=False, indexed=0)

    def _learn(self, scopes: Scopes, read: Epochs) -> Epochs:
        epochs, forget = self._epochs.learn(scopes, read, self._monotonic())
        if forget:
            self._local.clear()
        return epochs

    # Storing.

    async def store(
        self,
        lookup: Lookup,
        answer_body: dict[str, Any],
        *,
        receipt: dict[str, Any] | None = None,
        variant: str = "",
        turn: Turn | None = None,
    ) -> Stored:
        """Store the complete unary OpenAI body of status 200 that answered a lookup's request.

        ``turn``: the one it was computed in; a later leader's answer is never overwritten, and whoever
        waits learns whether a body came. Never raises but for cancellation.
        """
        try:
            stored = await self._store(lookup, answer_body, receipt, variant, turn)
        except Exception:
            log.exception("cache store failed")
            self.observer.lost(Operation.STORE, Loss.INTERNAL)
            stored = Stored(False, Loss.INTERNAL.value)
        self.observer.stored("semantic" if stored.semantic else "exact", stored.why)
        return stored

    async def _store(
        self,
        lookup: Lookup,
        body: dict[str, Any],
        receipt: dict[str, Any] | None,
        variant: str,
        turn: Turn | None,
    ) -> Stored:
        request, identity, address = lookup.request, lookup.identity, lookup.address
        if not lookup.storable or identity is None or address is None:
            return Stored(False, lookup.why)
        refusal = refuse_answer(request.path, body)
        if refusal is not None:
            return Stored(False, refusal.value)
        body_bytes = orjson.dumps(_without_receipt(body))
        if len(body_bytes) > self.settings.limits.max_entry_bytes:
            return Stored(False, Refusal.SIZE.value)
        now = request.now + (self._monotonic() - lookup.started_seconds)
        semantic = self._semantic if lookup.index_allowed else None
        answer = CachedAnswer(
            address=address,
            tenant=identity.tenant,
            model=request.model,
            variant=variant,
            created_seconds=now,
            expires_seconds=now + self.settings.ttl_seconds,
            body_bytes=body_bytes,
            text=identity.text or "" if semantic else "",
            receipt=receipt,
        )
        budget = lookup.budget or self._budget()
        token = turn.lease.token if turn and turn.lease else None
        try:
            put = await self.shared.put(answer, self.settings.ttl_seconds, budget, token=token)
        except StoreUnavailable as unavailable:
            self.observer.lost(Operation.STORE, unavailable.loss)
            self._local.put(answer, now)
            return Stored(True, unavailable.loss.value)
        if put is not Put.STORED:
            return Stored(False, put.value)
        if turn is not None:
            turn.stored = True
        self._local.put(answer, now)
        return Stored(True, "stored", semantic=semantic is not None and await semantic.add(lookup, answer, budget))

    # Sharing one run.

    @asynccontextmanager
    async def turn(self, lookup: Lookup, rank: Rank = most_urgent, *, follow: bool = False) -> AsyncIterator[Turn]:
        """Whether to serve what another replica (or an earlier run here) has just stored, or to run.

        To be entered within the run that ``flights`` shares. Waits while another replica computes; the
        caller's deadline bounds it. Where nothing may be shared, the store is away, or the other's run is less urgent
        by its ``rank`` and has not begun: run. ``follow``: take another replica's stream as it runs, if it has one.
        """
        request, address = lookup.request, lookup.address
        if address is None or not lookup.shareable:
            yield Turn()
            return
        local = self._local.get(address.exact, request.now)
        if local is not None and local.fresh(request.now, request.cache_control.max_age_seconds):
            yield Turn(answer=local)
            return
        async with self._leases.turn(address, budget=lookup.budget, rank=rank, follow=follow) as turn:
            if turn.answer is not None:
                if turn.answer.fresh(request.now, request.cache_control.max_age_seconds):
                    self._local.put(turn.answer, request.now)
                else:
                    turn = Turn(waited=turn.waited)
            yield turn

    def offer(self, turn: Turn, flight: Flight) -> AbstractAsyncContextManager[Outbound | None]:
        """Let other replicas follow a stream that runs in this turn; None where there is nobody it could be told to."""
        if turn.lease is None or not flight.stream:
            return nullcontext()
        return self._leases.relays.offer(turn.lease, flight, lambda: self.flights.keep(flight))

    # The rest.

    async def stats(self) -> dict[str, int | str | None]:
        """Of this process (``local_*``) and of the shared store (``shared_*``, or ``shared_lost`` and why)."""
        local: dict[str, int | str | None] = {
            "local_entries": len(self._local),
            "local_bytes": self._local.bytes_used,
            "flights": len(self.flights),
        }
        try:
            shared = await self.shared.stats(self._budget())
        except StoreUnavailable as unavailable:
            return local | {"shared_lost": unavailable.loss.value}
        return local | {f"shared_{name}": value for name, value in asdict(shared).items()}

    async def close(self) -> None:
        await self.flights.close()
        await self._leases.relays.close()
        await self.shared.close()

    def _budget(self) -> Budget:
        return Budget(self.settings.redis_budget_seconds, self._monotonic)


def _without_receipt(body: dict[str, Any]) -> dict[str, Any]:
    """The receipt belongs to one request; the answer is shared."""
    usage = body.get("usage")
    if not isinstance(usage, dict) or "wattgate" not in usage:
        return body
    return {**body, "usage": {name: value for name, value in usage.items() if name != "wattgate"}}
