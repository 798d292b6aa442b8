"""Texts of several requests in one pass of the encoder, and the pass's work divided among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from metering.work import EngineSteps, Method, WorkRecord
from serving.embeddings.encoding import EncodeRequest, Matrix


class TextEncoder(Protocol):
    """``cache.embedders.Encoder`` as far as it is used here; blocks, one thread."""

    def encode(self, texts: Sequence[str]) -> Matrix: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """Texts of one request for one pass."""

    request: EncodeRequest
    texts: tuple[str, ...]
    tokens: tuple[int, ...]
    """Length of each text, special tokens included."""


@dataclass(frozen=True, slots=True)
class Done:
    vectors: Matrix
    records: tuple[WorkRecord, ...]


def texts_in(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.texts) for piece in pieces)


def pieces_of(request: EncodeRequest, tokens: Sequence[int], most: int) -> list[Piece]:
    """A request cut so that each piece fits one pass."""
    return [
        Piece(request, request.texts[start : start + most], tuple(tokens[start : start + most]))
        for start in range(0, len(request.texts), most)
    ]


def run_pass(
    encoder: TextEncoder, pieces: Sequence[Piece], model: str, clock: Callable[[], float] = time.monotonic
) -> tuple[list[Done], EngineSteps]:
    """Blocks for one pass over all pieces; what each of them got, in their order."""
    started = clock()
    vectors = encoder.encode([text for piece in pieces for text in piece.texts])
    ended = clock()
    cuts = np.cumsum([len(piece.texts) for piece in pieces])[:-1]
    done = [
        Done(
            rows,
            tuple(
                WorkRecord(
                    piece.request.request_id,
                    model,
                    piece.request.tenant,
                    started,
                    ended,
                    prefill_tokens=tokens,
                    method=Method.MEASURED,
                )
                for tokens in piece.tokens
            ),
        )
        for piece, rows in zip(pieces, np.split(vectors, cuts), strict=True)
    ]
    return done, EngineSteps(model, started, ended, steps=1, sequence_steps=texts_in(pieces))
