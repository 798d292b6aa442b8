"""Encoders: blocking, one thread, a batch of texts to a matrix of unit vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


class Encoder(Protocol):
    """Called from one thread only."""

    id: str
    dimension: int
    window_tokens: int
    """Tokens with the special ones, as the model counts them."""
    gains_to: int
    """Texts in one call beyond which it takes as long as several calls; 1 where texts are encoded one by one."""

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in tokens, special ones included, never truncated."""

    def encode(self, texts: Sequence[str]) -> Matrix:
        """FP32, shape (len(texts), dimension); rows of length 1. Texts lie within the window."""


def unit_rows(vectors: Matrix) -> Matrix:
    """Rows scaled to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


class OnnxEncoder:
    """BERT-like ONNX model with mean pooling, on one thread of onnxruntime.

    Args:
        model: ``model.onnx`` with inputs ``input_ids``, ``attention_mask`` (and ``token_type_ids``).
        tokenizer: folder with ``tokenizer.json`` and ``sentence_bert_config.json``.
    """

    gains_to = 1

    def __init__(self, model: Path, tokenizer: Path, name: str) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._inputs = {item.name for item in self._session.get_inputs()}
        self._tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.window_tokens = _window(tokenizer)
        self.id = name
        self.dimension = int(self.encode(["a"]).shape[1])

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]

    def encode(self, texts: Sequence[str]) -> Matrix:
        # One by one: dynamic quantisation scales over the whole batch, so a batch would change every vector in it.
        return np.concatenate([self._one(text) for text in texts])

    def _one(self, text: str) -> Matrix:
        ids = np.asarray([self._tokenizer.encode(text).ids], dtype=np.int64)
        mask = np.ones_like(ids)
        feed: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(ids)
        hidden = np.asarray(self._session.run(None, feed)[0], dtype=np.float32)
        return unit_rows(hidden.mean(axis=1) if hidden.ndim == 3 else hidden)


class SentenceTransformerEncoder:
    """Any sentence-transformers model: a folder, or a name already in the local model cache. No network."""

    gains_to = 16

    def __init__(self, model: str | Path, name: str | None = None, device: str = "cpu") -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        if device == "cpu":
            torch.set_num_threads(1)
        logging.disable_progress_bar()
        self._model = SentenceTransformer(str(model), device=device, local_files_only=True)
        self._model.eval()
        self.window_tokens = int(self._model.max_seq_length or 512)
        self.dimension = int(self._model.encode(["a"], show_progress_bar=False).shape[1])
        self.id = name or f"st:{Path(str(model)).name}:{self.dimension}"

    @property
    def config(self) -> dict[str, Any] | None:
        """Hugging Face config of the transformer; None for a model without one."""
        config = getattr(getattr(self._model[0], "auto_model", None), "config", None)
        return None if config is None else dict(config.to_dict())

    def tokens(self, texts: Sequence[str]) -> list[int]:
        encoded = self._model.tokenizer(list(texts), truncation=False, add_special_tokens=True, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    def encode(self, texts: Sequence[str]) -> Matrix:
        vectors = self._model.encode(
            list(texts), batch_size=max(1, len(texts)), show_progress_bar=False, convert_to_numpy=True
        )
        return unit_rows(np.asarray(vectors, dtype=np.float32))


def _window(folder: Path) -> int:
    return int(json.loads((folder / "sentence_bert_config.json").read_text("utf-8"))["max_seq_length"])
