"""Shadow verification: a share of semantic hits also runs on the model, and the agreement of both answers is a label.

A near miss needs no run of its own: its request ran anyway, and that answer is compared with the one refused.
Agreement is judged on the safe side (see ``agree``): answers that only differ by sampling count as wrong, which makes
the threshold stricter, never looser. How often that happens depends on model and temperature, and is not measured here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

from cache.calibration import Calibrator, wilson
from cache.embedding import Embedder
from cache.entry import CachedAnswer
from cache.language.normalise import normalise
from cache.lookup import Lookup
from cache.vcache import VCachePolicy
from serving.metrics import Metrics

log = logging.getLogger("wattgate")

TENANT = "shadow"
"""Shadow runs are booked under this name, never to the tenant whose request they repeat."""
_SAME_MEANING_COSINE = 0.9
"""Chosen on the strict side: with encoders of this size answers of other content reach the eighties."""
_MOST_WAITING = 8
"""Verifications under way; beyond it hits are not sampled."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

Run = Callable[[Lookup], Awaitable[dict[str, Any] | None]]
"""Answers a lookup's request on the model at the lowest priority; None where there was no room."""


class ShadowVerifier:
    """Labels to the calibrator. ``share`` of hits are verified; every near miss is."""

    def __init__(
        self,
        *,
        share: float,
        calibrator: Calibrator,
        embedder: Embedder,
        metrics: Metrics,
        vcache: VCachePolicy | None = None,
        keep: Callable[[float, bool, bool], None] = lambda score, right, served: None,
        rng: random.Random | None = None,
    ) -> None:
        self._share = share
        self._calibrator = calibrator
        self._embedder = embedder
        self._metrics = metrics
        self._vcache = vcache
        self._keep = keep
        self._rng = rng or random.Random()
        self._tasks: set[asyncio.Task[None]] = set()
        self._export()

    def hit(self, lookup: Lookup, run: Run) -> None:
        """After a semantic hit has been served; returns at once."""
        if self._share <= 0.0 or lookup.score is None or lookup.answer is None or self._rng.random() >= self._share:
            return
        if len(self._tasks) >= _MOST_WAITING:
            self._metrics.add("wattgate_cache_shadow_total", 1, "skipped")
            return
        self._start(self._verify(lookup, lookup.answer, run))

    def missed(self, lookup: Lookup, fresh: Mapping[str, Any]) -> None:
        """After a request ran whose best neighbour no guard refused, but the threshold did."""
        if self._share <= 0.0 or not lookup.score or lookup.guard is not None or lookup.similarity is None:
            return
        for neighbour, answer in zip(lookup.neighbours, lookup.candidates, strict=True):
            if neighbour.similarity == lookup.similarity and len(self._tasks) < _MOST_WAITING:
                self._start(self._compare(lookup, answer, fresh, served=False))
                return

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(self._guarded(work), name="shadow")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:
            log.exception("shadow verification failed")
            self._metrics.add("wattgate_cache_shadow_total", 1, "failed")

    async def _verify(self, lookup: Lookup, served: CachedAnswer, run: Run) -> None:
        fresh = await run(lookup)
        if fresh is None:
            self._metrics.add("wattgate_cache_shadow_total", 1, "skipped")
            return
        await self._compare(lookup, served, fresh, served=True)

    async def _compare(self, lookup: Lookup, stored: CachedAnswer, fresh: Mapping[str, Any], *, served: bool) -> None:
        assert lookup.score is not None
        a, b = text_of(stored.body()), text_of(fresh)
        if a is None or b is None:
            self._metrics.add("wattgate_cache_shadow_total", 1, "failed")
            return
        right = await agree(a, b, self._embedder)
        self._calibrator.observe(lookup.score, right, served=served)
        if self._vcache is not None and lookup.similarity is not None:
            self._vcache.observe(stored.cache_id, lookup.similarity, right)
        self._keep(lookup.score, right, served)
        self._metrics.add("wattgate_cache_shadow_total", 1, "right" if right else "wrong")
        self._export()

    def _export(self) -> None:
        wrong, labelled = self._calibrator.wrong_of_served()
        low, high = wilson(wrong, labelled)
        put = self._metrics.set
        put("wattgate_cache_false_hit_ratio", wrong / labelled if labelled else float("nan"), "estimate")
        put("wattgate_cache_false_hit_ratio", low, "lower")
        put("wattgate_cache_false_hit_ratio", high, "upper")
        put("wattgate_cache_threshold_ratio", self._calibrator.threshold)


async def agree(a: str, b: str, embedder: Embedder) -> bool:
    """Equal after normalisation; or the same numbers, and a cosine that only rewordings reach."""
    if normalise(a).casefold() == normalise(b).casefold():
        return True
    if sorted(_NUMBER.findall(a)) != sorted(_NUMBER.findall(b)):
        return False
    first, second = await embedder.embed(a), await embedder.embed(b)
    if first is None or second is None:
        return False
    return float(np.dot(first, second)) >= _SAME_MEANING_COSINE


def text_of(body: Mapping[str, Any]) -> str | None:
    """The text of an unary answer; None where it has none."""
    try:
        message = body["choices"][0].get("message")
        text = body["choices"][0].get("text") if message is None else message.get("content")
    except (KeyError, IndexError, AttributeError):
        return None
    return text if isinstance(text, str) and text.strip() else None
