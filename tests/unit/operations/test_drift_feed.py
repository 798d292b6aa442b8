from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serving.operations.drift import Seen, Vector
from serving.operations.drift_feed import WatchedEmbedder, seen_of
from serving.telemetry.ended import Ended

ANSWERED = Ended(
    "r", "/v1/chat/completions", 200, None, 0.0, 1.0, tenant="t", model="m", cache="MISS",
    prompt_tokens=12, output_tokens=30, asked={"max_tokens": 64},
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, Seen(12, 30)),
        # as long as was allowed, and complete
        ({"output_tokens": 64, "endings": ("stop",)}, Seen(12, 64)),
        # cut by the context's end, though no limit was asked for
        ({"asked": None, "endings": ("stop", "length")}, Seen(12, 30, truncated=True)),
        ({"endings": ("refusal", "stop")}, Seen(12, 30, refused=True)),
        ({"endings": ("content_filter",)}, Seen(12, 30, refused=True)),
        ({"cache": "HIT-SEMANTIC"}, Seen(12, 30, hit=True)),
        ({"status": 400}, None),
        ({"status": 429}, None),
        ({"error": "broken_stream"}, None),
        ({"status": 499}, None),
        ({"status": 503}, None),
        ({"path": "/v1/embeddings", "output_tokens": 0}, None),
        ({"model": None, "status": 404}, None),
    ],
)
def test_what_an_ended_request_says_of_the_traffic(changes: dict[str, object], seen: Seen | None) -> None:
    assert seen_of(replace(ANSWERED, **changes)) == seen  # type: ignore[arg-type]


class Fixed:
    """Embeds one text; the others are out of its window."""

    id, dimension, window_tokens = "fixed", 2, 8

    async def embed(self, text: str) -> Vector | None:
        return np.array([1.0, 0.0], dtype=np.float32) if text == "known" else None


async def test_vectors_are_shown_as_they_pass_and_what_was_not_embedded_is_not() -> None:
    shown: list[tuple[Vector, str]] = []
    watched = WatchedEmbedder(Fixed(), lambda *seen: shown.append(seen))
    assert await watched.embed("too long") is None
    vector = await watched.embed("known")
    assert [(seen is vector, encoder) for seen, encoder in shown] == [(True, "fixed")]
    assert (watched.id, watched.dimension, watched.window_tokens) == ("fixed", 2, 8)
