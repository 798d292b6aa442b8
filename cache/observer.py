"""What the cache tells its metrics. Every name is from a bounded set."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from cache.control import Outcome


class Operation(StrEnum):
    """What was being done when something was lost."""

    LOOKUP = "lookup"
    SEARCH = "search"
    STORE = "store"
    INDEX = "index"
    INVALIDATE = "invalidate"
    FEEDBACK = "feedback"
    LOCK = "lock"
    RELAY = "relay"
    """Of a running stream's frames, to or from another replica."""


class Loss(StrEnum):
    """Why an operation on the store came to nothing."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    BREAKER_OPEN = "breaker_open"
    BUDGET_SPENT = "budget_spent"
    READ_ONLY = "read_only"
    FULL = "full"
    LOADING = "loading"
    UNSUPPORTED = "unsupported"
    """The server has no vector sets, or refuses them to this user."""
    REFUSED = "refused"
    """Any other error reply."""
    FORGED = "forged"
    """Bytes that were not written with this secret for this address."""
    INTERNAL = "internal"


class CacheObserver(Protocol):
    """Called on the event loop; must not block and must not raise."""

    def looked_up(self, outcome: Outcome, tier: str, why: str, seconds: float) -> None:
        """``tier``: local, exact, semantic or none."""

    def stored(self, tier: str, why: str) -> None:
        """``why`` is ``stored`` or the name of what refused."""

    def lost(self, operation: Operation, loss: Loss) -> None: ...

    def judged(self, why: str, guard: str | None) -> None: ...

    def swept(self, orphans: int, evicted: int) -> None:
        """Elements removed from a vector index: their bodies had expired, or the index was at its cap."""

    def breaker(self, open: bool) -> None: ...


class SilentObserver:
    """For callers that do not count."""

    def looked_up(self, outcome: Outcome, tier: str, why: str, seconds: float) -> None: ...

    def stored(self, tier: str, why: str) -> None: ...

    def lost(self, operation: Operation, loss: Loss) -> None: ...

    def judged(self, why: str, guard: str | None) -> None: ...

    def swept(self, orphans: int, evicted: int) -> None: ...

    def breaker(self, open: bool) -> None: ...
