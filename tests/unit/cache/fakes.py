"""Stand-ins for what surrounds the tiers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.control import CacheControl, Outcome
from cache.judgement import Neighbour, Verdict
from cache.lookup import CacheRequest
from cache.observer import Loss, Operation

SECRET = b"a secret of the tests, long enough"
START = 1_700_000_000.0


class Words:
    """Bag-of-words vectors: a few words in common, some cosine."""

    id = "words"
    dimension = 64
    window_tokens = 50

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False

    async def embed(self, text: str) -> np.ndarray | None:
        self.asked.append(text)
        words = text.lower().split()
        if self.broken or len(words) > self.window_tokens:
            return None
        vector = np.zeros(self.dimension, np.float32)
        for word in words:
            vector += np.random.default_rng(abs(sum(ord(c) * 31**i for i, c in enumerate(word))) % 2**32).normal(
                size=self.dimension
            )
        return vector.astype(np.float32)


@dataclass
class Threshold:
    """Serves the most similar neighbour above a cosine."""

    cosine: float = 0.5
    version: str = "1"
    seen: list[tuple[str, tuple[Neighbour, ...]]] = field(default_factory=list)

    async def judge(self, asked: str, neighbours: Sequence[Neighbour]) -> Verdict:
        self.seen.append((asked, tuple(neighbours)))
        best = neighbours[0].similarity
        serve = best > self.cosine
        return Verdict(serve, 0, max(0.0, best), "served" if serve else "below_threshold")


@dataclass
class Recorder:
    """An observer that keeps everything it is told."""

    lookups: list[tuple[Outcome, str, str]] = field(default_factory=list)
    stores: list[tuple[str, str]] = field(default_factory=list)
    losses: list[tuple[Operation, Loss]] = field(default_factory=list)
    judgements: list[tuple[str, str | None]] = field(default_factory=list)
    sweeps: list[tuple[int, int]] = field(default_factory=list)
    breakers: list[bool] = field(default_factory=list)

    def looked_up(self, outcome: Outcome, tier: str, why: str, seconds: float) -> None:
        self.lookups.append((outcome, tier, why))

    def stored(self, tier: str, why: str) -> None:
        self.stores.append((tier, why))

    def lost(self, operation: Operation, loss: Loss) -> None:
        self.losses.append((operation, loss))

    def judged(self, why: str, guard: str | None) -> None:
        self.judgements.append((why, guard))

    def swept(self, orphans: int, evicted: int) -> None:
        self.sweeps.append((orphans, evicted))

    def breaker(self, open: bool) -> None:
        self.breakers.append(open)


class ManualClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Sleeper:
    """Sleeps end when the clock is moved."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []
        self.pauses: list[float] = []

    async def __call__(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pauses.append(seconds)
        self._sleeping.append((self._clock.seconds + seconds, woken))
        await woken

    async def forward(self, seconds: float, step: float = 0.01) -> None:
        """Move the clock in small steps, letting everyone act at each."""
        end = self._clock.seconds + seconds
        while self._clock.seconds < end:
            self._clock.seconds += step
            for until, woken in self._sleeping:
                if until <= self._clock.seconds and not woken.done():
                    woken.set_result(None)
            for _ in range(6):
                await asyncio.sleep(0)


def asking(
    text: Any = "What is the capital of France?",
    *,
    tenant: str = "acme",
    control: str | None = None,
    now: float = START,
    history: Sequence[dict[str, Any]] = (),
    model: str = "m",
    **fields: Any,
) -> CacheRequest:
    payload = {"model": model, "messages": [*history, {"role": "user", "content": text}], **fields}
    return CacheRequest(
        tenant=tenant,
        path="/v1/chat/completions",
        payload=payload,
        model=model,
        variants=(f"{model}@1",),
        now=now,
        cache_control=CacheControl.parse(control),
    )


def answering(content: str = "Paris.", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }
