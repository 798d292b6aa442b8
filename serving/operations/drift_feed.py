"""What feeds the watch over traffic: requests that have ended, and prompts that the semantic cache embeds."""

from __future__ import annotations

from collections.abc import Callable

from cache.embedding import Embedder
from serving.api.endings import REFUSAL
from serving.operations.drift import Seen, Vector
from serving.operations.drift_watch import DriftWatches
from serving.telemetry.ended import Ended


class DriftSink:
    """``EndedSink``."""

    def __init__(self, watches: DriftWatches) -> None:
        self._watches = watches

    def ended(self, request: Ended) -> None:
        seen = seen_of(request)
        if seen is not None and request.model is not None:
            self._watches.ended(request.model, seen)

    def close(self) -> None:
        return None


def seen_of(request: Ended) -> Seen | None:
    """None for what no model answered: it was refused by us, or its client went, or something failed. Neither for
    embeddings, whose answers have no tokens.
    """
    if request.model is None or request.status != 200 or request.error is not None:
        return None
    if request.path == "/v1/embeddings":
        return None
    return Seen(
        request.prompt_tokens,
        request.output_tokens,
        refused=not {REFUSAL, "content_filter"}.isdisjoint(request.endings),
        truncated="length" in request.endings,
        hit=(request.cache or "").startswith("HIT"),
    )


class WatchedEmbedder:
    """An ``Embedder`` whose vectors are shown to somebody."""

    def __init__(self, embedder: Embedder, seen: Callable[[Vector, str], None]) -> None:
        """``seen`` takes a vector and its encoder's id."""
        self._embedder = embedder
        self._seen = seen

    async def embed(self, text: str) -> Vector | None:
        vector = await self._embedder.embed(text)
        if vector is not None:
            self._seen(vector, self.id)
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
