"""The simulation's prefix cache: whole blocks of equal prompt beginnings, the least recently used forgotten."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16
"""vLLM's default block."""


class PrefixCache:
    def __init__(self, capacity_tokens: int) -> None:
        self._capacity = capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def reuse(self, tokens: Sequence[str]) -> int:
        """How many tokens at the beginning are known; at least one is always left to compute, as in vLLM."""
        known = 0
        for digest in _digests(tokens):
            if digest not in self._blocks:
                break
            self._blocks.move_to_end(digest)
            known += BLOCK_TOKENS
        return min(known, max(0, len(tokens) - 1) // BLOCK_TOKENS * BLOCK_TOKENS)

    def keep(self, tokens: Sequence[str]) -> None:
        for digest in _digests(tokens):
            self._blocks[digest] = None
            self._blocks.move_to_end(digest)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)


def _digests(tokens: Sequence[str]) -> list[int]:
    """Of each whole block, with everything before it."""
    out, digest = [], 0
    for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        digest = zlib.crc32(" ".join(tokens[start : start + BLOCK_TOKENS]).encode("utf-8", "surrogatepass"), digest)
        out.append(digest)
    return out
