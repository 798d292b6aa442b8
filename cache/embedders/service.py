"""One worker thread before an encoder: requests that wait together share calls of it, late ones become misses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cache.embedders.encoder import Encoder
from cache.embedding import Vector

_LONGEST_WORD_PIECE = 24
"""Characters to a token beyond which a text is too long without counting; BERT's longest entry is shorter."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    text: str
    expires: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Vector | None]


class ThreadedEmbedder:
    """The ``Embedder`` seam over a blocking ``Encoder``.

    Args:
        deadline_seconds: an embedding not there by then is a miss; its vector still reaches the LRU.
        lru_entries: vectors kept; one of 384 dimensions takes 1.5 kB.
        batch: most texts that are taken up together.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        deadline_seconds: float = 0.05,
        lru_entries: int = 4096,
        batch: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._encoder, self._deadline, self._batch, self._clock = encoder, deadline_seconds, batch, clock
        self._capacity = lru_entries
        self._known: OrderedDict[str, Vector | None] = OrderedDict()
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="embedder", daemon=True)
        self._thread.start()

    @property
    def id(self) -> str:
        return self._encoder.id

    @property
    def dimension(self) -> int:
        return self._encoder.dimension

    @property
    def window_tokens(self) -> int:
        return self._encoder.window_tokens

    async def embed(self, text: str) -> Vector | None:
        if not text.strip() or len(text) > self.window_tokens * _LONGEST_WORD_PIECE:
            return None
        found, vector = self._recall(text)
        if found:
            return vector
        try:
            return await asyncio.wait_for(self._submit(text, self._clock() + self._deadline), self._deadline)
        except TimeoutError:
            return None

    async def embed_in_time(self, text: str) -> Vector | None:
        """Without deadline, for whoever nobody waits for; and nothing new is kept: questions alone are asked again."""
        if not text.strip() or len(text) > self.window_tokens * _LONGEST_WORD_PIECE:
            return None
        found, vector = self._recall(text)
        if found:
            return vector
        vector = await self._submit(text, math.inf)
        with self._lock:
            self._known.pop(text, None)
        return vector

    def patient(self) -> PatientEmbedder:
        """The same encoder and thread, without the deadline of a request."""
        return PatientEmbedder(self)

    def _submit(self, text: str, expires: float) -> asyncio.Future[Vector | None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Vector | None] = loop.create_future()
        self._jobs.put(_Job(text, expires, loop, future))
        return future

    def encode_now(self, texts: Sequence[str]) -> list[Vector | None]:
        """Blocking, in the caller's thread, without deadline: evaluation and training, never beside ``embed``."""
        out: list[Vector | None] = []
        for start in range(0, len(texts), self._batch):
            out.extend(self._vectors(texts[start : start + self._batch]))
        return out

    def close(self) -> None:
        """Ends the thread after the batch in hand."""
        self._jobs.put(None)
        self._thread.join(timeout=5.0)

    def _recall(self, text: str) -> tuple[bool, Vector | None]:
        with self._lock:
            if text not in self._known:
                return False, None
            self._known.move_to_end(text)
            return True, self._known[text]

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            while len(jobs) < self._batch:
                try:
                    following = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._jobs.put(None)
                    break
                jobs.append(following)
            self._encode(jobs)

    def _encode(self, jobs: Sequence[_Job]) -> None:
        """Answers after each call of the encoder: who is in the first need not wait for the last, and the event loop
        does not get all that follows from a vector at once."""
        texts = list(dict.fromkeys(each.text for each in jobs))
        for start in range(0, len(texts), self._encoder.gains_to):
            chunk = texts[start : start + self._encoder.gains_to]
            # Whoever stopped waiting is not worth a slot, save the newest: its text is likely asked again.
            awaited = {each.text for each in jobs if each.expires >= self._clock()} | {jobs[-1].text}
            known = {text: vector for text in chunk for found, vector in [self._recall(text)] if found}
            wanted = [text for text in chunk if text in awaited and text not in known]
            try:
                known |= zip(wanted, self._vectors(wanted), strict=True)
            except Exception:
                log.exception("embedding failed")
            for each in jobs:
                if each.text in chunk:
                    self._answer(each, known.get(each.text))

    @staticmethod
    def _answer(job: _Job, vector: Vector | None) -> None:
        def resolve() -> None:
            if not job.future.done():
                job.future.set_result(vector)

        with contextlib.suppress(RuntimeError):  # the loop of a caller that is gone
            job.loop.call_soon_threadsafe(resolve)

    def _vectors(self, texts: Sequence[str]) -> list[Vector | None]:
        short = [text for text in texts if text.strip() and len(text) <= self.window_tokens * _LONGEST_WORD_PIECE]
        safe = {text: text.encode("utf-8", "replace").decode() for text in short}
        counts = self._encoder.tokens(list(safe.values())) if safe else []
        fitting = [text for text, count in zip(safe, counts, strict=True) if count <= self.window_tokens]
        rows = self._encoder.encode([safe[text] for text in fitting]) if fitting else np.zeros((0, 0), np.float32)
        vectors: dict[str, Vector | None] = dict.fromkeys(texts)
        for text, row in zip(fitting, rows, strict=True):
            usable = bool(np.isfinite(row).all()) and float(np.abs(row).max()) > 0.0
            vectors[text] = np.ascontiguousarray(row) if usable else None
        with self._lock:
            for text, vector in vectors.items():
                self._known[text] = vector
                self._known.move_to_end(text)
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return [vectors[text] for text in texts]


class PatientEmbedder:
    """The ``Embedder`` seam off the path of requests."""

    def __init__(self, service: ThreadedEmbedder) -> None:
        self._service = service

    @property
    def id(self) -> str:
        return self._service.id

    @property
    def dimension(self) -> int:
        return self._service.dimension

    @property
    def window_tokens(self) -> int:
        return self._service.window_tokens

    async def embed(self, text: str) -> Vector | None:
        return await self._service.embed_in_time(text)
