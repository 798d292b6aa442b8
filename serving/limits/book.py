"""What limits are kept in: reservations that are leases, settlements that count once, accounts in integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Protocol

from serving.tenancy.tenant import LimitSettings

NANO = 10**9
MICRO = 10**6


@dataclass(frozen=True, slots=True)
class Ask:
    """A reservation wished for; held until it is settled or its lease ends."""

    lease: str
    """Unique over all replicas and time: never an id that a client chose."""
    tenant: str
    limits: LimitSettings
    tokens: int
    """Estimated, prompt and output."""
    nanograms: int
    """Estimated, CO2e."""
    lifetime_seconds: float
    """Then what it holds comes back by itself: its holder is dead."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The standing after the decision. Levels are what is left of a bucket; None: not limited."""

    refused: str | None = None
    """requests, tokens, concurrent, carbon_day or carbon_month."""
    retry_seconds: float = 0.0
    """Until a bucket has refilled enough; 0 for concurrency and budgets."""
    requests_left: float | None = None
    tokens_left: float | None = None
    concurrent: int = 0
    day_nanograms: int = 0
    """Settled today, this tenant."""
    month_nanograms: int = 0
    held_nanograms: int = 0
    """Reserved and not yet settled."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a request really used; integers, so that sums are exact in any order."""

    requests: int = 1
    failed: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    microjoules: int = 0
    operational_nanograms: int = 0
    embodied_nanograms: int = 0
    nanocost: int = 0
    """In thousand-millionths of the operator's currency; nothing without prices."""
    cache_hits: int = 0
    avoided_tokens: int = 0
    avoided_microjoules: int = 0
    """Negative of a hit that cost more than the run it replaced."""
    avoided_nanograms: int = 0

    @property
    def tokens(self) -> int:
        """Counted against the rate: what an engine was asked for; answers from the cache are free."""
        return self.prompt_tokens + self.output_tokens

    @property
    def nanograms(self) -> int:
        return self.operational_nanograms + self.embodied_nanograms

    def __add__(self, other: Use) -> Use:
        return Use(**{name: getattr(self, name) + getattr(other, name) for name in USE_FIELDS})


USE_FIELDS = tuple(field.name for field in fields(Use))
NOTHING = Use(requests=0)


@dataclass(frozen=True, slots=True)
class Settlement:
    """Booked once by ``lease``, however often it is sent."""

    lease: str
    tenant: str
    limits: LimitSettings
    use: Use
    wall_seconds: float | None = None
    """Whose day and month it belongs to; None: those of now."""


def periods(wall_seconds: float) -> tuple[str, str]:
    """The UTC day and month of a time since the epoch: ``20260131`` and ``202601``."""
    at = datetime.fromtimestamp(wall_seconds, UTC)
    return at.strftime("%Y%m%d"), at.strftime("%Y%m")


def seconds_left(wall_seconds: float, period: str) -> float:
    """Until the UTC day or month (``carbon_day``, ``carbon_month``) ends."""
    at = datetime.fromtimestamp(wall_seconds, UTC)
    if period == "carbon_day":
        return 86400.0 - (at.hour * 3600 + at.minute * 60 + at.second + at.microsecond / MICRO)
    following = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
    return (following - at).total_seconds()


def as_use(raw: Mapping[str, int]) -> Use:
    return Use(**{name: int(raw.get(name, 0)) for name in USE_FIELDS})


class LimitBook(Protocol):
    """Redis in service, memory for one process; one contract suite for both.

    Raises ``StoreUnavailable`` and nothing else. Times are seconds since the epoch.
    """

    async def reserve(self, ask: Ask, now: float) -> Verdict: ...

    async def settle(self, settlements: Sequence[Settlement], now: float) -> None: ...

    async def usage(self, tenant: str, now: float) -> tuple[Use, Use]:
        """Of the present day and month."""

    async def close(self) -> None: ...
