"""From the configuration to the response cache, and the cache's observer to the metrics."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from cache.admission import Limits
from cache.control import Outcome
from cache.evidence import VerifiedLabel
from cache.observer import Loss, Operation
from cache.redis_store import RedisStore
from cache.settings import CacheSettings
from cache.shared_labels import SharedLabels
from cache.tiers import ResponseCache
from cache.time_sensitivity import warm_up
from serving.cache_settings import CacheSettings as CacheSection
from serving.config import GatewayConfig
from serving.grey_zone import GreyZone
from serving.metrics import Metrics
from serving.operations.drift_feed import WatchedEmbedder
from serving.operations.drift_watch import DriftWatches
from serving.placement.judging import Judgement, build_judgement, label_file
from serving.shadow import ShadowVerifier


class MetricsObserver:
    """``CacheObserver`` that counts."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def looked_up(self, outcome: Outcome, tier: str, why: str, seconds: float) -> None:
        self._metrics.add("wattgate_cache_lookups_total", 1, outcome.value, tier, why)
        self._metrics.observe("wattgate_cache_lookup_seconds", seconds, outcome.value)

    def stored(self, tier: str, why: str) -> None:
        self._metrics.add("wattgate_cache_stores_total", 1, tier, why)

    def lost(self, operation: Operation, loss: Loss) -> None:
        self._metrics.add("wattgate_cache_faults_total", 1, operation.value, loss.value)

    def judged(self, why: str, guard: str | None) -> None:
        self._metrics.add("wattgate_cache_judgements_total", 1, why, guard or "")

    def swept(self, orphans: int, evicted: int) -> None:
        for reason, count in (("orphan", orphans), ("evicted", evicted)):
            if count:
                self._metrics.add("wattgate_cache_swept_total", count, reason)

    def breaker(self, open: bool) -> None:
        if open:
            self._metrics.add("wattgate_cache_faults_total", 1, "breaker", "opened")


def new_secret() -> str:
    """For the hash that separates tenants, where none is configured."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class BuiltCache:
    cache: ResponseCache | None
    shadow: ShadowVerifier | None = None
    grey_zone: GreyZone | None = None


def build_shadow(
    settings: CacheSection,
    judgement: Judgement,
    metrics: Metrics,
    drift: DriftWatches | None = None,
    redis_url: str | None = None,
) -> ShadowVerifier | None:
    """None where nothing is to be verified."""
    if settings.shadow_share <= 0.0:
        return None
    labels = label_file(settings, judgement.labels_version)

    def keep(label: VerifiedLabel) -> None:
        if label.kind == "served" and drift is not None:
            drift.verified(not label.agreed)
        if labels is None:
            return
        try:
            labels.append(label)
        except OSError:
            metrics.add("wattgate_cache_faults_total", 1, "labels", "not_written")

    return ShadowVerifier(
        share=settings.shadow_share,
        evidence=judgement.evidence,
        embedder=judgement.answer_embedder or judgement.embedder,
        metrics=metrics,
        policy=judgement.judge.policy,
        vcache=judgement.vcache,
        keep=keep,
        shared=None if redis_url is None else SharedLabels(redis_url, version=judgement.labels_version),
    )


async def build_cache(
    config: GatewayConfig,
    redis_url: str | None,
    metrics: Metrics,
    tell: Callable[[str], None] = lambda _: None,
    drift: DriftWatches | None = None,
) -> BuiltCache:
    """Neither a Redis nor an embedder that is away keeps the gateway from starting."""
    settings = config.cache
    if settings.tier == "off":
        return BuiltCache(None)
    assert settings.tenant_secret is not None, "the supervisor draws one"
    secret = settings.tenant_secret.get_secret_value().encode()
    observer = MetricsObserver(metrics)
    store = RedisStore(redis_url, secret=secret, observer=observer) if redis_url else None
    await asyncio.to_thread(warm_up)
    wanted = settings.tier == "semantic" and store is not None
    judgement = await build_judgement(settings, metrics, tell) if wanted else None
    embedder = judgement.embedder if judgement else None
    if embedder is not None and drift is not None:
        embedder = WatchedEmbedder(embedder, drift.embedded)
    cache = ResponseCache(
        secret=secret,
        store=store,
        embedder=embedder,
        judge=judgement.judge if judgement else None,
        settings=CacheSettings(
            ttl_seconds=settings.ttl_seconds,
            local_entries=settings.local_entries,
            local_ttl_seconds=settings.local_ttl_seconds,
            redis_budget_seconds=settings.redis_budget_seconds,
            index_capacity=settings.index_capacity,
            limits=replace(Limits(), max_entry_bytes=settings.max_answer_bytes),
        ),
        observer=observer,
    )
    if judgement is None:
        return BuiltCache(cache)
    floor = settings.grey_zone_floor
    grey_zone = GreyZone(floor=floor, metrics=metrics) if floor is not None else None
    return BuiltCache(cache, build_shadow(settings, judgement, metrics, drift, redis_url), grey_zone)
