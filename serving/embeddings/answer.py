"""Vectors to the body of OpenAI's answer."""

from __future__ import annotations

import base64

import numpy as np
import orjson

from serving.embeddings.encoding import Matrix


def shortened(vectors: Matrix, dimensions: int) -> Matrix:
    """The first numbers of each vector, of length 1 again."""
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.asarray(cut / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def answer_body(vectors: Matrix, *, model: str, prompt_tokens: int, base64_vectors: bool) -> bytes:
    """``base64_vectors``: little-endian float32, as OpenAI's SDKs ask for and decode by themselves."""
    little = np.ascontiguousarray(vectors, dtype="<f4")
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(row.tobytes()).decode() if base64_vectors else row,
        }
        for index, row in enumerate(little)
    ]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens, "completion_tokens": 0}
    return orjson.dumps(
        {"object": "list", "data": data, "model": model, "usage": usage}, option=orjson.OPT_SERIALIZE_NUMPY
    )
