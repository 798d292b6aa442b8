"""An embedder for unit tests: words hashed into buckets. Deterministic, no model, no meaning."""

from __future__ import annotations

import hashlib

import numpy as np

from cache.embedding import Vector
from cache.language.normalise import fold, normalise


class HashEmbedder:
    def __init__(self, dimension: int = 64, window_tokens: int = 256) -> None:
        self._dimension = dimension
        self._window = window_tokens

    @property
    def id(self) -> str:
        return f"hash:{self._dimension}"

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def window_tokens(self) -> int:
        return self._window

    async def embed(self, text: str) -> Vector | None:
        return self.vector(text)

    def vector(self, text: str) -> Vector | None:
        words = fold(normalise(text)).split()
        if not words or len(words) > self._window:
            return None
        out = np.zeros(self._dimension, dtype=np.float32)
        for word in words:
            digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            out[int.from_bytes(digest[:4], "big") % self._dimension] += 1.0 if digest[4] & 1 else -1.0
        length = float(np.linalg.norm(out))
        return out / length if length > 0 else None
