"""A replay with its own Redis 8: the cache as the gateway builds it, on the clock of a recorded stream."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry

from cache.admission import Limits
from cache.embedded import EmbeddedRedis, EmbeddedRedisError
from cache.redis_store import RedisStore
from cache.replay import BUDGET_SECONDS, Recorded, Replayed, StreamClock, replay
from cache.settings import CacheSettings as TierSettings
from cache.tiers import ResponseCache
from serving.cache_settings import CacheSettings
from serving.metrics import Metrics
from serving.placement.judging import build_judgement


class ReplayRefused(Exception):
    """One line: what is missing, and the mend."""


def run_replay(stream: Sequence[Recorded], settings: CacheSettings) -> tuple[list[Replayed], float, dict[str, Any]]:
    """(results in order, seconds in lookups, what the threshold rests on).

    Raises:
        ReplayRefused: no Redis, no embedder, or a calibration that cannot be read.
    """
    try:
        with EmbeddedRedis() as redis:
            return asyncio.run(_run(stream, settings, redis.url))
    except EmbeddedRedisError as error:
        raise ReplayRefused(str(error)) from None


async def _run(
    stream: Sequence[Recorded], settings: CacheSettings, url: str
) -> tuple[list[Replayed], float, dict[str, Any]]:
    told: list[str] = []
    patient = settings.model_copy(update={"embed_deadline_seconds": BUDGET_SECONDS})
    judgement = await build_judgement(patient, Metrics(CollectorRegistry()), told.append)
    if judgement is None:
        raise ReplayRefused(told[-1])
    secret = secrets.token_bytes(32)
    clock = StreamClock()
    cache = ResponseCache(
        secret=secret,
        store=RedisStore(url, secret=secret),
        embedder=judgement.embedder,
        judge=judgement.judge,
        settings=TierSettings(
            ttl_seconds=settings.ttl_seconds,
            redis_budget_seconds=BUDGET_SECONDS,
            limits=replace(Limits(), max_entry_bytes=settings.max_answer_bytes),
        ),
        monotonic=clock,
    )
    try:
        results, seconds = await replay(stream, cache, clock)
    finally:
        await cache.close()
    calibrator = judgement.calibrator
    labels = calibrator.shipped
    return (
        results,
        seconds,
        {
            "source": labels.source,
            "note": labels.note,
            "labels": len(labels.labels),
            "threshold": settings.score_threshold if settings.policy == "threshold" else calibrator.threshold,
        },
    )
