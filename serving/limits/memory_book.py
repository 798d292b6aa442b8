"""Limits of one process: for tests, without Redis, and while Redis is away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.limits.book import NANO, NOTHING, Ask, Settlement, Use, Verdict, periods

_BUCKET_SECONDS = 60.0
_SETTLED_KEPT = 100_000


@dataclass(slots=True)
class _Bucket:
    level: float | None = None
    at: float = 0.0

    def refill(self, limit: int | None, now: float) -> None:
        if limit is None:
            self.level = None
        elif self.level is None:
            self.level, self.at = float(limit), now
        else:
            self.level = min(float(limit), self.level + max(0.0, now - self.at) * limit / _BUCKET_SECONDS)
            self.at = max(self.at, now)

    def add(self, amount: float, limit: int | None) -> None:
        if limit is not None and self.level is not None:
            self.level = min(float(limit), self.level + amount)


@dataclass(slots=True)
class _Tenant:
    requests: _Bucket = field(default_factory=_Bucket)
    tokens: _Bucket = field(default_factory=_Bucket)
    leases: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    """To (end, tokens, nanograms)."""
    accounts: dict[str, Use] = field(default_factory=dict)


class MemoryBook:
    """``LimitBook``; each call is one step."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._settled: OrderedDict[str, None] = OrderedDict()

    async def reserve(self, ask: Ask, now: float) -> Verdict:
        tenant, limits = self._tenants.setdefault(ask.tenant, _Tenant()), ask.limits
        tenant.requests.refill(limits.requests_per_minute, now)
        tenant.tokens.refill(limits.tokens_per_minute, now)
        self._free(tenant, ask, now)
        held = sum(nanograms for _, _, nanograms in tenant.leases.values())
        day, month = (tenant.accounts.get(period, NOTHING).nanograms for period in periods(now))
        need = min(ask.tokens, limits.tokens_per_minute) if limits.tokens_per_minute is not None else 0
        refused, retry = None, 0.0
        if limits.requests_per_minute is not None and (short := 1 - (tenant.requests.level or 0.0)) > 0:
            refused, retry = "requests", short * _BUCKET_SECONDS / limits.requests_per_minute
        elif limits.tokens_per_minute is not None and (short := need - (tenant.tokens.level or 0.0)) > 0:
            refused, retry = "tokens", short * _BUCKET_SECONDS / limits.tokens_per_minute
        elif limits.concurrent_requests is not None and len(tenant.leases) >= limits.concurrent_requests:
            refused = "concurrent"
        elif limits.carbon == "hard":
            if _over(limits.grams_per_day, day + held + ask.nanograms):
                refused = "carbon_day"
            elif _over(limits.grams_per_month, month + held + ask.nanograms):
                refused = "carbon_month"
        if refused is None:
            tenant.requests.add(-1, limits.requests_per_minute)
            tenant.tokens.add(-need, limits.tokens_per_minute)
            tenant.leases[ask.lease] = (now + ask.lifetime_seconds, need, ask.nanograms)
            held += ask.nanograms
        return Verdict(refused, retry, tenant.requests.level, tenant.tokens.level, len(tenant.leases), day, month, held)

    @staticmethod
    def _free(tenant: _Tenant, ask: Ask, now: float) -> None:
        for lease, (end, tokens, _) in list(tenant.leases.items()):
            if end <= now:
                del tenant.leases[lease]
                tenant.tokens.add(tokens, ask.limits.tokens_per_minute)

    async def settle(self, settlements: Sequence[Settlement], now: float) -> None:
        for settlement in settlements:
            if settlement.lease in self._settled:
                continue
            self._settled[settlement.lease] = None
            if len(self._settled) > _SETTLED_KEPT:
                self._settled.popitem(last=False)
            tenant = self._tenants.setdefault(settlement.tenant, _Tenant())
            limit = settlement.limits.tokens_per_minute
            tenant.tokens.refill(limit, now)
            _, held, _ = tenant.leases.pop(settlement.lease, (0.0, 0, 0))
            tenant.tokens.add(held - settlement.use.tokens, limit)
            at = now if settlement.wall_seconds is None else settlement.wall_seconds
            for period in periods(at):
                tenant.accounts[period] = tenant.accounts.get(period, NOTHING) + settlement.use
            kept = {*periods(now), *periods(at)}
            tenant.accounts = {period: use for period, use in tenant.accounts.items() if period in kept}

    async def usage(self, tenant: str, now: float) -> tuple[Use, Use]:
        accounts = self._tenants.get(tenant, _Tenant()).accounts
        day, month = periods(now)
        return accounts.get(day, NOTHING), accounts.get(month, NOTHING)

    async def close(self) -> None:
        pass


def _over(grams: float | None, nanograms: int) -> bool:
    return grams is not None and nanograms > round(grams * NANO)
