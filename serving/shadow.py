"""Shadow verification: a share of semantic hits also runs on the model, and the agreement of both answers is a label.

A near miss needs no run of its own: its request ran anyway, and that answer is compared with the one refused.
Agreement is judged on the safe side (see ``serving.agreement``): answers that only differ by sampling count as wrong,
and what cannot be compared is no label. How often sampling does that depends on model and temperature, so it is
measured as it goes: one verification in five runs the request twice and compares the two fresh answers, and answers to
questions that a guard kept apart are compared as well. Both error rates enter the false-hit ratio, its bounds, and the
threshold (``cache.comparator``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cache.embedding import Embedder
from cache.entry import CachedAnswer
from cache.evidence import Evidence, Kind, VerifiedLabel
from cache.judge import ConformalPolicy, Policy
from cache.lookup import Lookup
from cache.shared_labels import SharedLabels
from cache.store import StoreUnavailable
from cache.vcache import VCachePolicy
from serving.agreement import agree
from serving.grey_zone import VERIFIED
from serving.metrics import Metrics

log = logging.getLogger("wattgate")

TENANT = "shadow"
"""Shadow runs are booked under this name, never to the tenant whose request they repeat."""
_MOST_WAITING = 8
"""Verifications under way; beyond it hits are not sampled."""
_TWICE = 0.2
"""Share of the verified hits whose request runs a second time, to see how two answers to one question differ."""
_APART = 0.1
"""Share of the misses with a neighbour that a guard refused whose answers are compared: costs an embedding each."""
_CATCH_UP_SECONDS = 5.0
"""Between two looks at what other replicas have verified; taken when a request comes by, never by a timer."""
_LABELS_AT_ONCE = 20
"""Then others' work goes on: a replica that joins reads up to 6,000, and every 20th fits the threshold (some ms)."""

Run = Callable[[Lookup], Awaitable[dict[str, Any] | None]]
"""Answers a lookup's request on the model at the lowest priority; None where there was no room."""


class ShadowVerifier:
    """Labels to the evidence. ``share`` of hits are verified; every near miss is."""

    def __init__(
        self,
        *,
        share: float,
        evidence: Evidence,
        embedder: Embedder,
        metrics: Metrics,
        policy: Policy | None = None,
        vcache: VCachePolicy | None = None,
        keep: Callable[[VerifiedLabel], None] = lambda label: None,
        shared: SharedLabels | None = None,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._evidence = evidence
        self._embedder = embedder
        self._metrics = metrics
        self._policy = policy or ConformalPolicy(evidence.calibrator)
        self._vcache = vcache
        self._keep = keep
        self._shared = shared
        self._exchanging = asyncio.Lock()
        self._caught_up_seconds = -math.inf
        self._joined = False
        self._rng = rng or random.Random()
        self._monotonic = monotonic
        self._tasks: set[asyncio.Task[None]] = set()
        self._export()

    def hit(self, lookup: Lookup, run: Run) -> None:
        """After a semantic hit has been served; returns at once."""
        self._catch_up()
        if self._share <= 0.0 or lookup.score is None or lookup.answer is None or self._rng.random() >= self._share:
            return
        if len(self._tasks) >= _MOST_WAITING:
            self._metrics.add("wattgate_cache_shadow_total", 1, "skipped")
            return
        self._start(self._verify(lookup, lookup.answer, run))

    def missed(self, lookup: Lookup, fresh: Mapping[str, Any]) -> None:
        """After a request ran whose best neighbour the threshold refused, or a guard: that one for comparison only."""
        self._catch_up()
        if self._share <= 0.0 or lookup.judged is None:
            return
        if lookup.guard is not None and self._rng.random() >= _APART:
            return
        if lookup.guard is None and (not lookup.score or lookup.why == "contested"):
            return
        if len(self._tasks) < _MOST_WAITING:
            answer = lookup.judged[1]
            kind: Kind = "refused" if lookup.guard is None else "different"
            self._start(self._compare(lookup, answer.body(), fresh, kind, answer))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._shared is not None:
            await self._shared.close()

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
        await self._compare(lookup, served.body(), fresh, "grey" if lookup.why == VERIFIED else "served", served)
        if self._rng.random() < _TWICE:
            again = await run(lookup)
            if again is not None:
                await self._compare(lookup, again, fresh, "same")

    async def _compare(
        self,
        lookup: Lookup,
        one: Mapping[str, Any],
        fresh: Mapping[str, Any],
        kind: Kind,
        stored: CachedAnswer | None = None,
    ) -> None:
        a, b = text_of(one), text_of(fresh)
        if a is None or b is None:
            self._metrics.add("wattgate_cache_shadow_total", 1, "failed")
            return
        agreed = await agree(a, b, self._embedder)
        if agreed is None:
            self._metrics.add("wattgate_cache_shadow_total", 1, "failed")
            return
        label = VerifiedLabel(kind, lookup.score or 0.0, agreed)
        self._keep(label)
        if label.judged:
            outcome = "right" if agreed else "wrong"
            self._metrics.add("wattgate_cache_shadow_total", 1, f"grey_{outcome}" if kind == "grey" else outcome)
            if self._vcache is not None and stored is not None and lookup.similarity is not None:
                self._vcache.observe(stored.cache_id, lookup.similarity, agreed)
        await self._exchange(label)

    def _catch_up(self) -> None:
        now = self._monotonic()
        if self._shared is not None and now - self._caught_up_seconds >= _CATCH_UP_SECONDS:
            self._caught_up_seconds = now
            self._start(self._exchange(None))

    async def _exchange(self, label: VerifiedLabel | None) -> None:
        """Own label out, everybody's in; alone with its own while Redis is away."""
        async with self._exchanging:
            for number, each in enumerate(await self._new(label), start=1):
                self._evidence.add(each)
                if number % _LABELS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        self._export()

    async def _new(self, label: VerifiedLabel | None) -> list[VerifiedLabel]:
        alone = [label] if label is not None else []
        if self._shared is None:
            return alone
        try:
            labels = await self._shared.exchange(label)
        except StoreUnavailable as unavailable:
            self._metrics.add("wattgate_cache_faults_total", 1, "labels", unavailable.loss.value)
            return alone
        joined, self._joined = self._joined, True
        return labels if joined else self._join(labels, label)

    def _join(self, labels: list[VerifiedLabel], own: VerifiedLabel | None) -> list[VerifiedLabel]:
        """Of Redis and the file read at start the more complete: what one holds is mostly in the other too."""
        held = len(labels) - (own is not None)
        if held < self._evidence.replayed:
            # a Redis that began anew, as the embedded one does with the gateway
            return [own] if own is not None else []
        if held:
            self._evidence.forget()
        return labels

    def _export(self) -> None:
        calibrator, comparator = self._evidence.calibrator, self._evidence.comparator
        estimate, low, high = comparator.wrong(*calibrator.wrong_of_served())
        put = self._metrics.set
        put("wattgate_cache_false_hit_ratio", estimate, "estimate")
        put("wattgate_cache_false_hit_ratio", low, "lower")
        put("wattgate_cache_false_hit_ratio", high, "upper")
        put("wattgate_cache_max_wrong_ratio", calibrator.max_wrong)
        put("wattgate_cache_threshold_ratio", self._policy.threshold)
        for kind, (count, trials) in (("false_alarm", comparator.false_alarms), ("miss", comparator.misses)):
            put("wattgate_cache_comparator_error_ratio", count / trials if trials else math.nan, kind)


def text_of(body: Mapping[str, Any]) -> str | None:
    """The text of an unary answer; None where it has none."""
    try:
        message = body["choices"][0].get("message")
        text = body["choices"][0].get("text") if message is None else message.get("content")
    except (KeyError, IndexError, AttributeError):
        return None
    return text if isinstance(text, str) and text.strip() else None
