"""The semantic tier: which requests take part, the search among neighbours, and what enters the index."""

from __future__ import annotations

import hashlib

from cache.admission import refuse_semantic
from cache.embedding import Embedder
from cache.entry import CachedAnswer
from cache.identity import Identity
from cache.judgement import Judge, Neighbour
from cache.lookup import CacheRequest, Lookup
from cache.observer import CacheObserver, Operation
from cache.settings import CacheSettings
from cache.store import Budget, IndexSpec, ResponseStore, StoreUnavailable


class SemanticTier:
    """Searches and fills the vector index of a partition; the judge decides."""

    def __init__(
        self,
        store: ResponseStore,
        embedder: Embedder,
        judge: Judge,
        settings: CacheSettings,
        observer: CacheObserver,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._judge = judge
        self._settings = settings
        self._observer = observer

    @property
    def index(self) -> IndexSpec:
        """Named for embedder and judge: a change of either starts an index anew and leaves the exact tier alone."""
        versions = f"{self._embedder.id}\0{self._judge.version}".encode()
        return IndexSpec(
            name=hashlib.sha256(versions).hexdigest()[:12],
            dimension=self._embedder.dimension,
            capacity=self._settings.index_capacity,
        )

    def index_for(self, request: CacheRequest, identity: Identity) -> IndexSpec | None:
        """The index that a request takes part in, or None."""
        if refuse_semantic(request.payload, identity.text, self._settings.limits) is not None:
            return None
        return self.index

    async def search(self, lookup: Lookup, text: str, partition: str, budget: Budget) -> CachedAnswer | None:
        """The stored answer that the judge would serve. Fills in what was seen and why."""
        lookup.vector = await self._embedder.embed(text)
        if lookup.vector is None:
            lookup.why = "not_embedded"
            return None
        try:
            found, orphans = await self._store.nearest(
                partition, self.index, lookup.vector, self._settings.candidates, budget
            )
        except StoreUnavailable as unavailable:
            self._observer.lost(Operation.SEARCH, unavailable.loss)
            lookup.why = unavailable.loss.value
            return None
        if orphans:
            self._observer.swept(orphans, 0)
        request = lookup.request
        live = [item for item in found if item.answer.fresh(request.now, request.cache_control.max_age_seconds)]
        if not live:
            if lookup.why == "absent":
                lookup.why = "no_neighbours"
            return None
        lookup.candidates = tuple(item.answer for item in live)
        lookup.neighbours = tuple(
            Neighbour(
                text=item.answer.text,
                similarity=item.similarity,
                entry_id=item.answer.cache_id,
                model=item.answer.model,
                age_seconds=max(0.0, request.now - item.answer.created_seconds),
            )
            for item in live
        )
        verdict = await self._judge.judge(text, lookup.neighbours)
        self._observer.judged(verdict.why, verdict.guard)
        lookup.score, lookup.guard, lookup.why = verdict.score, verdict.guard, verdict.why
        if 0 <= verdict.index < len(live):
            lookup.chosen, lookup.similarity = verdict.index, live[verdict.index].similarity
            if verdict.serve:
                return live[verdict.index].answer
        return None

    async def add(self, lookup: Lookup, answer: CachedAnswer, budget: Budget) -> bool:
        """Index an entry whose body has been written."""
        vector = lookup.vector if lookup.vector is not None else await self._embedder.embed(answer.text)
        if vector is None:
            return False
        try:
            evicted = await self._store.add(answer.address, self.index, vector, self._settings.ttl_seconds, budget)
        except StoreUnavailable as unavailable:
            self._observer.lost(Operation.INDEX, unavailable.loss)
            return False
        if evicted:
            self._observer.swept(0, evicted)
        return True
