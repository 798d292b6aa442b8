"""Replicas of the cache over one store, and a store that loses what it is told to."""

from __future__ import annotations

from typing import Any

from cache.lookup import CacheRequest, Lookup, Stored
from cache.memory import MemoryStore
from cache.tiers import ResponseCache
from tests.unit.cache.fakes import SECRET, ManualClock, Recorder, Threshold, Words, answering


class Kit:
    """One shared store, any number of replicas, one clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)
        self.observer, self.embedder, self.judge = Recorder(), Words(), Threshold()

    def replica(self, **changes: Any) -> ResponseCache:
        parts: dict[str, Any] = {
            "secret": SECRET,
            "store": self.store,
            "embedder": self.embedder,
            "judge": self.judge,
            "observer": self.observer,
            "monotonic": self.clock,
        }
        return ResponseCache(**{**parts, **changes})


async def fill(cache: ResponseCache, request: CacheRequest, body: dict[str, Any] | None = None) -> Stored:
    return await cache.store(await cache.lookup(request), body or answering(), variant="m@1", receipt={"joules": 2.0})


def seen(lookup: Lookup) -> tuple[str, str]:
    return lookup.outcome.value, lookup.why


class Faulty(MemoryStore):
    """Loses the calls named."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.losing: dict[str, Exception] = {}

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name != "losing" and name in self.losing:
            error = self.losing[name]

            async def lose(*_: Any, **__: Any) -> None:
                raise error

            return lose
        return super().__getattribute__(name)
