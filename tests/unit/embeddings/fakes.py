"""Encoders without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from metering.settlement import Rates
from serving.embeddings.batching import pieces_of, run_pass
from serving.embeddings.encoding import Encoded, EncodeRequest, EncoderGone, EncoderModel, Matrix, TooLong

BERT = {
    "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
}  # fmt: skip


class WordEncoder:
    """One token a word and two special ones; a text's vector points where its length says."""

    dimension = 4
    window_tokens = 8

    def __init__(self) -> None:
        self.passes: list[list[str]] = []

    @property
    def config(self) -> dict[str, object]:
        return BERT

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def encode(self, texts: Sequence[str]) -> Matrix:
        self.passes.append(list(texts))
        rows = np.array([[len(text), 1.0, 2.0, 3.0] for text in texts], dtype=np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class HeldRemote:
    """``RemoteEncoder`` in the process; ``gate`` closed: calls wait. ``dies``: so many calls find it gone."""

    def __init__(self) -> None:
        self.encoder = WordEncoder()
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.dies = 0
        self.requests: list[EncodeRequest] = []
        self.abandoned = 0

    async def describe(self) -> EncoderModel:
        return EncoderModel("words", self.encoder.dimension, self.encoder.window_tokens, self.encoder.config)

    async def encode(self, request: EncodeRequest) -> Encoded | TooLong:
        self.requests.append(request)
        self.entered.set()
        if self.dies:
            self.dies -= 1
            raise EncoderGone("killed by the test")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        tokens = self.encoder.tokens(request.texts)
        for index, count in enumerate(tokens):
            if count > self.encoder.window_tokens:
                return TooLong(index, count, self.encoder.window_tokens)
        done, _ = run_pass(self.encoder, pieces_of(request, tokens, 2048), "words")
        return Encoded(done[0].vectors, done[0].records, Rates(power="scripted"))
