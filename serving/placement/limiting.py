"""From the configuration to the tenants' limiter."""

from __future__ import annotations

from cache.control import Outcome
from cache.observer import Loss, Operation
from cache.redis_link import RedisLink
from serving.config import GatewayConfig
from serving.limits.limiter import TenantLimiter
from serving.limits.redis_book import RedisBook
from serving.metrics import Metrics


class _Breaker:
    """``CacheObserver`` of the limits' own connection: only its breaker speaks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def looked_up(self, outcome: Outcome, tier: str, why: str, seconds: float) -> None: ...

    def stored(self, tier: str, why: str) -> None: ...

    def lost(self, operation: Operation, loss: Loss) -> None: ...

    def judged(self, why: str, guard: str | None) -> None: ...

    def swept(self, orphans: int, evicted: int) -> None: ...

    def breaker(self, open: bool) -> None:
        if open:
            self._metrics.add("wattgate_limit_faults_total", 1, "breaker")


def build_limiter(config: GatewayConfig, redis_url: str | None, metrics: Metrics) -> TenantLimiter:
    """Without Redis each replica counts for itself."""
    book = None if redis_url is None else RedisBook(RedisLink(redis_url, observer=_Breaker(metrics)))
    return TenantLimiter(
        book,
        strict=config.limits.strict,
        on_fault=lambda what: metrics.add("wattgate_limit_faults_total", 1, what),
        on_refusal=lambda tenant, limit: metrics.add("wattgate_limit_refusals_total", 1, tenant, limit),
        on_overdrawn=lambda tenant, limit: metrics.add("wattgate_limit_overdrawn_total", 1, tenant, limit),
    )
