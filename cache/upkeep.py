"""Entries looked at and taken out by hand: by an operator, or by the tenant whose they are."""

from __future__ import annotations

from collections.abc import Callable

from cache.entry import CachedAnswer
from cache.epochs import EpochBook
from cache.identity import Address, TenantHasher
from cache.local import LocalTier
from cache.lookup import Invalidated
from cache.observer import CacheObserver, Operation
from cache.store import Budget, IndexSpec, ResponseStore, StoreUnavailable


class Upkeep:
    """Of all tiers of a cache, and through the shared store of all its replicas."""

    def __init__(
        self,
        *,
        shared: ResponseStore,
        local: LocalTier,
        epochs: EpochBook,
        index: Callable[[], IndexSpec | None],
        hash_tenant: TenantHasher,
        tombstone_seconds: float,
        observer: CacheObserver,
        budget: Callable[[], Budget],
    ) -> None:
        self._shared = shared
        self._local = local
        self._epochs = epochs
        self._index = index
        self._hash_tenant = hash_tenant
        self._tombstone_seconds = tombstone_seconds
        self._observer = observer
        self._budget = budget

    async def invalidate(
        self,
        *,
        cache_id: str | None = None,
        tenant: str | None = None,
        model: str | None = None,
        everything: bool = False,
        owner: str | None = None,
    ) -> Invalidated:
        """Remove one entry, or all of a tenant, of a model, or of all: exactly one of the four.

        ``owner``: the tenant who asks; with it only his own entries can be named by id.

        Raises:
            ValueError: none or several targets, or a malformed id; the message is for the caller.
        """
        if sum((cache_id is not None, tenant is not None, model is not None, everything)) != 1:
            raise ValueError("invalidate: name exactly one of id, tenant, model, all")
        if cache_id is not None:
            return await self._take_out(Address.parse(cache_id), owner, Operation.INVALIDATE)
        if tenant is not None:
            return await self._advance(f"t:{self._hash_tenant(tenant)}")
        return await self._advance("*" if model is None else f"m:{model}")

    async def feedback(self, cache_id: str, *, tenant: str, good: bool) -> Invalidated:
        """A client's word on an answer that it was served. Bad: the entry goes and its place stays empty for a while.

        Raises:
            ValueError: malformed id.
        """
        return await self._take_out(Address.parse(cache_id), tenant, Operation.FEEDBACK, keep=good)

    def owns(self, tenant: str, answer: CachedAnswer) -> bool:
        return answer.tenant == self._hash_tenant(tenant)

    async def inspect(self, cache_id: str) -> CachedAnswer | None:
        """The stored entry. Raises ValueError (malformed id) and StoreUnavailable."""
        return await self._fetch(Address.parse(cache_id))

    async def _fetch(self, address: Address) -> CachedAnswer | None:
        answer = await self._shared.fetch(address, self._budget())
        return answer or self._local.get(address.exact, float("-inf"))

    async def _take_out(
        self, address: Address, owner: str | None, operation: Operation, *, keep: bool = False
    ) -> Invalidated:
        try:
            answer = await self._fetch(address)
            if answer is None:
                return Invalidated(False, "absent")
            if owner is not None and not self.owns(owner, answer):
                return Invalidated(False, "not_yours")
            if keep:
                return Invalidated(True, "done", answer)
            self._local.drop(address.exact)
            index, budget = self._index(), self._budget()
            if operation is Operation.FEEDBACK:
                await self._shared.entomb(address, index, self._tombstone_seconds, budget)
            else:
                await self._shared.remove(address, index, budget)
            # Other replicas forget what they hold in process, too.
            await self._shared.advance("local", budget)
        except StoreUnavailable as unavailable:
            self._observer.lost(operation, unavailable.loss)
            return Invalidated(False, unavailable.loss.value)
        return Invalidated(True, "done", answer)

    async def _advance(self, field: str) -> Invalidated:
        self._local.clear()
        try:
            await self._shared.advance(field, self._budget())
        except StoreUnavailable as unavailable:
            self._observer.lost(Operation.INVALIDATE, unavailable.loss)
            return Invalidated(False, unavailable.loss.value)
        self._epochs.forget_checks()
        return Invalidated(True, "done")
