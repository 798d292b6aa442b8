"""What feeds the watch over traffic: requests that have ended, and prompts that the semantic cache embeds."""

from __future__ import annotations

from collections.abc import Callable

from cache.embedding import Embedder
from serving.operations.drift import DriftWatch, Seen, Vector
from serving.telemetry.ended import Ended


class DriftSink:
    """``EndedSink``."""

    def __init__(self, watch: DriftWatch) -> None:
        self._watch = watch

    def ended(self, request: Ended) -> None:
        seen = seen_of(request)
        if seen is not None:
            self._watch.ended(seen)

    def close(self) -> None:
        return None


def seen_of(request: Ended) -> Seen | None:
    """None for what says nothing of traffic: a model that is not served, a client that went, a fault of ours."""
    if request.model is None or request.status == 499 or request.status >= 500:
        return None
    if request.status >= 400:
        return Seen(0, 0, refused=True)
    asked = request.asked or {}
    limit = asked.get("max_completion_tokens", asked.get("max_tokens"))
    answers = max(1, int(asked.get("n", 1)))
    # as many tokens as were allowed: the answer was cut (or ended there by chance)
    truncated = limit is not None and request.output_tokens >= limit * answers
    hit = (request.cache or "").startswith("HIT")
    return Seen(request.prompt_tokens, request.output_tokens, truncated=truncated, hit=hit)


class WatchedEmbedder:
    """An ``Embedder`` whose vectors are shown to somebody."""

    def __init__(self, embedder: Embedder, seen: Callable[[Vector], None]) -> None:
        self._embedder = embedder
        self._seen = seen

    async def embed(self, text: str) -> Vector | None:
        vector = await self._embedder.embed(text)
        if vector is not None:
            self._seen(vector)
        return vector

    @property
    def id(self) -> str:
        return self._embedder.id

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    @property
    def window_tokens(self) -> int:
        return self._embedder.window_tokens
