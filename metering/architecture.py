"""Reading a model's shape from its Hugging Face config: a dict, a directory, a ``config.json`` or a hub id."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metering.config_layers import Config, is_sparse, layer_of, optional, required, size_of, windows_of
from metering.errors import BadInput, UnknownArchitecture, nearest
from metering.families import ALIASES, FAMILIES, Family
from metering.shape import Attention, FeedForward, LayerGroup, LoraTarget, ModelArchitecture

__all__ = [
    "Attention", "FeedForward", "LayerGroup", "LoraTarget", "ModelArchitecture",
    "architecture_from_config", "load_architecture",
]  # fmt: skip

_DTYPE_BYTES = {
    "float64": 8.0, "float32": 4.0, "float": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0,
    "float8_e4m3fn": 1.0, "float8_e5m2": 1.0, "int8": 1.0,
}  # fmt: skip
_QUANTISED_BYTES = {"fp8": 1.0, "fbgemm_fp8": 1.0, "mxfp4": 0.5}
"""By ``quantization_config.quant_method``, where the method fixes the width; else its ``bits`` decide."""


_TEXT_DEFAULTS: dict[str, dict[str, int]] = {"gemma3_text": {"num_attention_heads": 8, "vocab_size": 262_208}}
"""What published multimodal configs leave to their text model's class (``Gemma3TextConfig``)."""


def load_architecture(model: str | Path, *, assume: str | None = None) -> ModelArchitecture:
    """The architecture of a model directory, a ``config.json`` or (when no such path exists) a hub id.

    A hub id is resolved by ``transformers.AutoConfig``, which may use the network or its local cache.

    Raises:
        BadInput: nothing at that path, or not a JSON object.
        UnknownArchitecture: see :func:`architecture_from_config`.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        path = path / "config.json"
        if not path.exists():
            raise BadInput(f"no config.json in {path.parent}: give a model directory or a config.json")
    if path.exists():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{path} is not JSON ({error}): give a model's config.json") from error
        if not isinstance(config, dict):
            raise BadInput(f"{path} does not hold a JSON object: give a model's config.json")
        return architecture_from_config(config, assume=assume)
    if path.suffix == ".json" or str(model).count("/") != 1 or str(model).startswith((".", "/", "~")):
        raise BadInput(f"no model at {model}: give a directory, a config.json or a hub id as owner/name")
    return architecture_from_config(_hub_config(str(model)), assume=assume)


def _hub_config(model: str) -> dict[str, Any]:
    try:
        from transformers import AutoConfig

        config: dict[str, Any] = AutoConfig.from_pretrained(model).to_dict()
    except Exception as error:  # transformers raises OSError, ValueError or a client error of its hub library
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"cannot load the config of {model}: {first_line}") from error
    return config


def architecture_from_config(config: Config, *, assume: str | None = None) -> ModelArchitecture:
    """The architecture of a Hugging Face config dict; a multimodal config gives its text model.

    ``assume`` names a known family to read an unknown ``model_type`` as (say ``llama``); it is noted in the result.

    Raises:
        UnknownArchitecture: the ``model_type`` is absent or not known, and nothing is assumed.
        BadInput: a size is missing, or not a positive whole number.
    """
    declared = config.get("model_type")
    notes: list[str] = []
    text = config.get("text_config")
    if isinstance(text, Mapping):
        notes.append(f"Only the text model of {declared} is counted, not its other towers.")
        merged = {key: config[key] for key in ("dtype", "torch_dtype", "quantization_config") if config.get(key)}
        if "tie_word_embeddings" in config:
            merged["tie_word_embeddings"] = config["tie_word_embeddings"]
        declared = text.get("model_type", f"{declared}_text")
        given = {key: value for key, value in text.items() if value is not None}
        config = {**_TEXT_DEFAULTS.get(str(declared), {}), **merged, **given}
    family, model_type = _family(declared, assume, notes)
    if config.get("is_encoder_decoder"):
        raise UnknownArchitecture(f"{declared} is an encoder-decoder: only decoders and encoders are counted")
    dtype, dtype_bytes = _dtype(config, notes)
    hidden, count = size_of(config, "hidden"), size_of(config, "layers")
    embedding_width = optional(config, "word_embed_proj_dim", hidden)
    if embedding_width != hidden:
        raise UnknownArchitecture(f"{declared} with projected embeddings (word_embed_proj_dim) is not counted")
    windows = windows_of(config, family, count)
    layers = Counter((windows[index], is_sparse(config, family, index)) for index in range(count))
    vocabulary = size_of(config, "vocabulary")
    decoder = family.kind == "decoder"
    norm = hidden * (2 if family.norm_bias else 1)
    others = (norm if family.final_norm else 0) + (vocabulary if family.head_bias else 0)
    if family.pooler:
        others += hidden * hidden + hidden
    if family.relative_buckets:
        others += optional(config, family.relative_buckets, 32) * size_of(config, "heads")
    return ModelArchitecture(
        model_type=model_type,
        kind=family.kind,
        hidden_size=hidden,
        vocabulary_size=vocabulary,
        layers=tuple(
            layer_of(config, family, hidden, number, window, sparse) for (window, sparse), number in layers.items()
        ),
        head_weights=hidden * vocabulary if decoder else 0,
        head_tied=decoder and bool(config.get("tie_word_embeddings", family.tied)),
        embedding_parameters=_embeddings(config, family, hidden, vocabulary),
        other_parameters=others,
        dtype=dtype,
        dtype_bytes=dtype_bytes,
        weight_bytes_each=_weight_bytes(config, dtype_bytes, notes),
        max_context_tokens=optional(config, "max_position_embeddings", optional(config, "n_positions", 0, 0), 0)
        or None,
        notes=tuple(notes),
    )


def _family(declared: Any, assume: str | None, notes: list[str]) -> tuple[Family, str]:
    known = str(declared)
    known = ALIASES.get(known, known)
    if known in FAMILIES:
        return FAMILIES[known], str(declared)
    if assume is None:
        if declared is None:
            raise UnknownArchitecture("the config has no model_type: add it, or assume a family such as llama")
        raise UnknownArchitecture(
            f"unknown architecture {declared!r}{nearest(known, FAMILIES)}; "
            "assume a family of the same layers (as llama) if there is one"
        )
    if assume not in FAMILIES:
        raise UnknownArchitecture(f"cannot assume unknown family {assume!r}{nearest(assume, FAMILIES)}")
    notes.append(f"Unknown architecture {declared}: counted as {assume}, as asked.")
    return FAMILIES[assume], assume


def _dtype(config: Config, notes: list[str]) -> tuple[str, float]:
    declared = config.get("dtype") or config.get("torch_dtype")
    if declared is None:
        notes.append("The config declares no dtype: float32 taken, as its library does.")
        return "float32", 4.0
    name = str(declared).removeprefix("torch.")
    if name not in _DTYPE_BYTES:
        raise BadInput(f"unknown dtype {name!r} in the config{nearest(name, _DTYPE_BYTES)}")
    return name, _DTYPE_BYTES[name]


def _weight_bytes(config: Config, dtype_bytes: float, notes: list[str]) -> float:
    quantisation = config.get("quantization_config")
    if not isinstance(quantisation, Mapping):
        return dtype_bytes
    method = str(quantisation.get("quant_method", ""))
    bits = quantisation.get("bits") or quantisation.get("w_bit")
    if quantisation.get("load_in_4bit"):
        bits = 4
    elif quantisation.get("load_in_8bit"):
        bits = 8
    if isinstance(bits, int) and bits > 0:
        return bits / 8
    if method in _QUANTISED_BYTES:
        return _QUANTISED_BYTES[method]
    notes.append(f"Bytes of a weight under quantisation {method or 'of unknown method'} are not known: dtype taken.")
    return dtype_bytes


def _embeddings(config: Config, family: Family, hidden: int, vocabulary: int) -> int:
    rows = vocabulary
    if family.positions:
        rows += required(config, family.positions) + family.position_offset
    if family.segments:
        rows += required(config, family.segments)
    norm = 2 * hidden if family.kind == "encoder" else 0
    return rows * hidden + norm
