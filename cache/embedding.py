"""The embedder seam: text in, one unit vector out, off the event loop."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class Embedder(Protocol):
    """Implementations own their thread, batching, LRU and deadline; vectors of two ids never share an index."""

    @property
    def id(self) -> str:
        """Model, revision and backend: everything that changes a vector."""

    @property
    def dimension(self) -> int: ...

    @property
    def window_tokens(self) -> int:
        """Tokens that the encoder sees; text beyond them must not take part."""

    async def embed(self, text: str) -> Vector | None:
        """FP32 vector of shape (dimension,), or None: outside the window, past the deadline, or failed.

        Never raises but for cancellation.
        """
