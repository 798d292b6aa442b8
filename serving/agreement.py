"""Do two answers say the same? On the safe side, and None where it cannot be told.

Answers are longer than questions, mostly longer than an encoder's window. They are compared piece by piece: each piece
with the one of the other answer that is most like it. A mean vector of a long answer would hide the one sentence that
differs.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from cache.embedding import Embedder, Vector
from cache.language.normalise import normalise

_SAME_MEANING_COSINE = 0.9
"""Chosen on the strict side: with encoders of this size answers of other content reach the eighties."""
_LEAST_COSINE = 0.75
"""Of each piece with its like in the other answer: one sentence of its own must not drown among many shared ones."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_CHARACTERS_A_TOKEN = 3
"""On the dear side for English; a piece that is too long all the same is halved."""
_SHORTEST_PIECE = 40
"""Characters: what is not embedded at that length is not too long, so halving it helps no more."""
_LONGEST_CHARACTERS = 40_000
"""Beyond it an answer is not compared: some 50 pieces take the embedder, one by one, for a second or more."""


async def agree(a: str, b: str, embedder: Embedder) -> bool | None:
    """Equal after normalisation; or the same numbers, and cosines that only rewordings reach.

    None where an answer cannot be embedded: that says nothing about the two. ``embedder`` should have no deadline of
    a request's.
    """
    if normalise(a).casefold() == normalise(b).casefold():
        return True
    if sorted(_NUMBER.findall(a)) != sorted(_NUMBER.findall(b)):
        return False
    if max(len(a), len(b)) > _LONGEST_CHARACTERS:
        return None
    first = await _vectors(a, embedder)
    second = await _vectors(b, embedder) if first is not None else None
    if first is None or second is None:
        return None
    cosines = first @ second.T
    # either way round: neither answer may hold what the other does not
    return all(
        bool(likest.mean() >= _SAME_MEANING_COSINE and likest.min() >= _LEAST_COSINE)
        for likest in (cosines.max(axis=1), cosines.max(axis=0))
    )


async def _vectors(text: str, embedder: Embedder) -> NDArray[np.float32] | None:
    """One row a piece. One at a time, so that a request's own embedding waits for one piece at most."""
    rows: list[Vector] = []
    waiting = pieces(text, max(_SHORTEST_PIECE, embedder.window_tokens * _CHARACTERS_A_TOKEN))[::-1]
    while waiting:
        piece = waiting.pop()
        vector = await embedder.embed(piece)
        if vector is not None:
            rows.append(vector)
        elif len(piece) <= _SHORTEST_PIECE:
            return None
        else:
            waiting.extend(pieces(piece, (len(piece) + 1) // 2)[::-1])
    return np.stack(rows) if rows else None


def pieces(text: str, most_characters: int) -> list[str]:
    """Whole sentences together as long as they fit; one that is longer is cut at a space, or where it has none."""
    out: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        rest = sentence.strip()
        if rest and out and len(out[-1]) + 1 + len(rest) <= most_characters:
            out[-1] += " " + rest
            continue
        while len(rest) > most_characters:
            cut = rest.rfind(" ", 1, most_characters + 1)
            cut = cut if cut > 0 else most_characters
            out.append(rest[:cut].strip())
            rest = rest[cut:].strip()
        if rest:
            out.append(rest)
    return out
