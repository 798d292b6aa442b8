"""The embedding service: batches, memory, deadline, window; never an exception, never the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from cache.embedders import HashEmbedder, ThreadedEmbedder
from cache.embedders.encoder import Matrix


class GatedEncoder:
    """Encodes when the test opens the gate."""

    id, dimension, window_tokens = "gated", 4, 8

    def __init__(self, gains_to: int = 16) -> None:
        self.gains_to = gains_to
        self.gate = threading.Event()
        self.started = threading.Event()
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.fail = False

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def encode(self, texts: Sequence[str]) -> Matrix:
        self.started.set()
        self.gate.wait(5)
        self.batches.append(list(texts))
        self.threads.add(threading.get_ident())
        if self.fail:
            raise RuntimeError("no memory")
        rows = np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (len(texts), 1))
        for row, text in zip(rows, texts, strict=True):
            if text == "nan":
                row[:] = np.nan
            if text == "zero":
                row[:] = 0
        return rows


@pytest.fixture
def encoder() -> GatedEncoder:
    return GatedEncoder()


@pytest.fixture
def embedder(encoder: GatedEncoder) -> Iterator[ThreadedEmbedder]:
    service = ThreadedEmbedder(encoder, deadline_seconds=5.0)
    yield service
    encoder.gate.set()
    service.close()


async def test_requests_that_wait_together_share_a_batch(encoder: GatedEncoder, embedder: ThreadedEmbedder) -> None:
    first = asyncio.ensure_future(embedder.embed("first"))
    await asyncio.to_thread(encoder.started.wait, 5)
    others = [asyncio.ensure_future(embedder.embed(text)) for text in ("a", "b", "a")]
    await asyncio.sleep(0)
    encoder.gate.set()
    vectors = await asyncio.gather(first, *others)
    assert all(vector is not None for vector in vectors)
    assert encoder.batches == [["first"], ["a", "b"]]
    assert threading.get_ident() not in encoder.threads


async def test_where_a_batch_gains_nothing_each_text_is_answered_when_it_is_there() -> None:
    encoder = GatedEncoder(gains_to=1)
    service = ThreadedEmbedder(encoder, deadline_seconds=5.0)
    first = asyncio.ensure_future(service.embed("first"))
    await asyncio.to_thread(encoder.started.wait, 5)
    others = [asyncio.ensure_future(service.embed(text)) for text in ("a", "b", "a")]
    await asyncio.sleep(0)
    encoder.gate.set()
    assert all(vector is not None for vector in await asyncio.gather(first, *others))
    service.close()
    assert encoder.batches == [["first"], ["a"], ["b"]]


async def test_of_those_that_stopped_waiting_only_the_newest_is_encoded() -> None:
    encoder, now = GatedEncoder(gains_to=1), [0.0]
    service = ThreadedEmbedder(encoder, deadline_seconds=5.0, clock=lambda: now[0])
    first = asyncio.ensure_future(service.embed("first"))
    await asyncio.to_thread(encoder.started.wait, 5)
    others = [asyncio.ensure_future(service.embed(text)) for text in ("a", "b", "c")]
    await asyncio.sleep(0)
    now[0] = 6.0
    encoder.gate.set()
    assert [vector is None for vector in await asyncio.gather(first, *others)] == [False, True, True, False]
    service.close()
    assert encoder.batches == [["first"], ["c"]]


async def test_a_known_text_is_not_encoded_again(encoder: GatedEncoder, embedder: ThreadedEmbedder) -> None:
    encoder.gate.set()
    await embedder.embed("once")
    await embedder.embed("once")
    assert encoder.batches == [["once"]]


async def test_after_the_deadline_it_is_a_miss(encoder: GatedEncoder) -> None:
    service = ThreadedEmbedder(encoder, deadline_seconds=0.01)
    assert await service.embed("late") is None
    encoder.gate.set()
    service.close()


async def test_a_patient_caller_gets_what_a_request_would_not_have_waited_for(encoder: GatedEncoder) -> None:
    service = ThreadedEmbedder(encoder, deadline_seconds=0.01)
    waiting = asyncio.ensure_future(service.patient().embed("an answer"))
    assert await service.embed("late") is None
    encoder.gate.set()
    assert await waiting is not None
    service.close()


async def test_answers_do_not_push_questions_out_of_memory(encoder: GatedEncoder) -> None:
    service = ThreadedEmbedder(encoder, deadline_seconds=5.0, lru_entries=2)
    encoder.gate.set()
    await service.embed("a question")
    for number in range(3):
        await service.patient().embed(f"answer {number}")
    await service.embed("a question")
    assert [text for batch in encoder.batches for text in batch].count("a question") == 1
    service.close()


@pytest.mark.parametrize("text", ["", "  \n", "one two three four five six seven", "x" * 10_000])
async def test_nothing_outside_the_window_takes_part(
    encoder: GatedEncoder, embedder: ThreadedEmbedder, text: str
) -> None:
    encoder.gate.set()
    assert await embedder.embed(text) is None
    assert encoder.batches == []


@pytest.mark.parametrize("text", ["nan", "zero"])
async def test_a_useless_vector_is_a_miss(encoder: GatedEncoder, embedder: ThreadedEmbedder, text: str) -> None:
    encoder.gate.set()
    assert await embedder.embed(text) is None


async def test_a_failing_encoder_is_a_miss_and_the_next_text_is_tried(
    encoder: GatedEncoder, embedder: ThreadedEmbedder
) -> None:
    encoder.gate.set()
    encoder.fail = True
    assert await embedder.embed("a") is None
    encoder.fail = False
    assert await embedder.embed("b") is not None


async def test_lone_surrogates_reach_the_encoder_as_text(encoder: GatedEncoder, embedder: ThreadedEmbedder) -> None:
    encoder.gate.set()
    assert await embedder.embed("a \ud800 b") is not None


async def test_the_memory_is_bounded(encoder: GatedEncoder) -> None:
    service = ThreadedEmbedder(encoder, deadline_seconds=5.0, lru_entries=1)
    encoder.gate.set()
    for text in ("a", "b", "a"):
        await service.embed(text)
    service.close()
    assert encoder.batches == [["a"], ["b"], ["a"]]


async def test_the_hash_embedder_is_deterministic_and_of_length_one() -> None:
    first, again = await HashEmbedder().embed("How are you"), await HashEmbedder().embed("how are  you")
    assert first is not None
    assert again is not None
    assert np.array_equal(first, again)
    assert float(np.linalg.norm(first)) == pytest.approx(1.0)
