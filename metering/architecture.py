"""Reading a model's shape from its Hugging Face config: a dict, a directory, a ``config.json`` or a hub id."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metering.errors import BadInput, UnknownArchitecture, nearest
from metering.families import ALIASES, FAMILIES, Family
from metering.shape import Attention, FeedForward, LayerGroup, LoraTarget, ModelArchitecture

__all__ = [
    "Attention", "FeedForward", "LayerGroup", "LoraTarget", "ModelArchitecture",
    "architecture_from_config", "load_architecture",
]  # fmt: skip

Config = Mapping[str, Any]

_DTYPE_BYTES = {
    "float64": 8.0, "float32": 4.0, "float": 4.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0,
    "float8_e4m3fn": 1.0, "float8_e5m2": 1.0, "int8": 1.0,
}  # fmt: skip
_QUANTISED_BYTES = {"fp8": 1.0, "fbgemm_fp8": 1.0, "mxfp4": 0.5}
"""By ``quantization_config.quant_method``, where the method fixes the width; else its ``bits`` decide."""

_NAMES = {
    "hidden": ("hidden_size", "n_embd", "dim", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "vocabulary": ("vocab_size",),
}


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
    if path.suffix or str(model).count("/") != 1 or str(model).startswith((".", "/", "~")):
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
        config = {**merged, **text}
        declared = config.get("model_type", f"{declared}_text")
    family, model_type = _family(declared, assume, notes)
    if config.get("is_encoder_decoder"):
        raise UnknownArchitecture(f"{declared} is an encoder-decoder: only decoders and encoders are counted")
    dtype, dtype_bytes = _dtype(config, notes)
    hidden, count = _size(config, "hidden"), _size(config, "layers")
    embedding_width = int(config.get("word_embed_proj_dim") or hidden)
    if embedding_width != hidden:
        raise UnknownArchitecture(f"{declared} with projected embeddings (word_embed_proj_dim) is not counted")
    windows = _windows(config, family, count)
    layers = Counter((windows[index], _sparse(config, family, index)) for index in range(count))
    vocabulary = _size(config, "vocabulary")
    decoder = family.kind == "decoder"
    norm = hidden * (2 if family.norm_bias else 1)
    others = (norm if family.final_norm else 0) + (vocabulary if family.head_bias else 0)
    if family.pooler:
        others += hidden * hidden + hidden
    if family.relative_buckets:
        others += int(config.get(family.relative_buckets) or 32) * _size(config, "heads")
    return ModelArchitecture(
        model_type=model_type,
        kind=family.kind,
        hidden_size=hidden,
        vocabulary_size=vocabulary,
        layers=tuple(
            _layer(config, family, hidden, number, window, sparse) for (window, sparse), number in layers.items()
        ),
        head_weights=hidden * vocabulary if decoder else 0,
        head_tied=decoder and bool(config.get("tie_word_embeddings", family.tied)),
        embedding_parameters=_embeddings(config, family, hidden, vocabulary),
        other_parameters=others,
        dtype=dtype,
        dtype_bytes=dtype_bytes,
        weight_bytes_each=_weight_bytes(config, dtype_bytes, notes),
        max_context_tokens=config.get("max_position_embeddings") or config.get("n_positions"),
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


def _size(config: Config, what: str) -> int:
    for key in _NAMES[what]:
        if config.get(key) is not None:
            return _positive(key, config[key])
    raise BadInput(f"the config has no {_NAMES[what][0]}: is it a model's config.json?")


def _positive(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{key} in the config must be a positive whole number, got {value!r}")
    return value


def _required(config: Config, key: str) -> int:
    if config.get(key) is None:
        raise BadInput(f"the config has no {key}: is it a complete config.json?")
    return _positive(key, config[key])


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
    if isinstance(bits, int):
        return bits / 8
    if method in _QUANTISED_BYTES:
        return _QUANTISED_BYTES[method]
    notes.append(f"Bytes of a weight under quantisation {method or 'of unknown method'} are not known: dtype taken.")
    return dtype_bytes


def _windows(config: Config, family: Family, count: int) -> list[int | None]:
    """The sliding window of each layer, None where it attends to everything."""
    window = config.get("sliding_window")
    if window is None and family.window == "pattern":
        window = 4096  # default of the config classes with a pattern: Gemma 3, Cohere 2, OLMo 3
    if window is None or not family.window or (family.window == "flagged" and not config.get("use_sliding_window")):
        return [None] * count
    window = _positive("sliding_window", window)
    types = config.get("layer_types")
    if isinstance(types, list):
        if len(types) != count:
            raise BadInput(f"layer_types names {len(types)} layers of {count}: mend the config")
        return [window if "sliding" in str(one) else None for one in types]
    pattern = int(
        config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or family.window_pattern
    )
    full_until = int(config.get("max_window_layers", count))
    sliding = {
        "all": set(range(count)),
        "flagged": set(range(full_until, count)),
        "even": set(range(0, count, 2)),
        "pattern": {index for index in range(count) if (index + 1) % pattern},
    }[family.window]
    return [window if index in sliding else None for index in range(count)]


def _sparse(config: Config, family: Family, index: int) -> bool:
    """Whether this layer's feed-forward block is a mixture of experts."""
    if family.moe in ("qwen2", "qwen3"):
        step = int(config.get("decoder_sparse_step") or 1)
        dense = config.get("mlp_only_layers") or []
        return index not in dense and (index + 1) % step == 0 and int(config.get("num_experts") or 0) > 0
    if family.moe == "deepseek":
        step = int(config.get("moe_layer_freq") or 1)
        first = int(config.get("first_k_dense_replace") or 0)
        return bool(config.get("n_routed_experts")) and index >= first and index % step == 0
    return bool(family.moe)


def _layer(config: Config, family: Family, hidden: int, count: int, window: int | None, sparse: bool) -> LayerGroup:
    attention, norms = (_latent_attention if family.latent else _attention)(config, family, hidden, window)
    ffn, biases = _mixture(config, family, hidden) if sparse else _dense(config, family, hidden)
    others = norms + biases + family.norms * hidden * (2 if family.norm_bias else 1)
    return LayerGroup(count, attention, ffn, others)


def _flag(config: Config, family: Family, trait: bool | str) -> bool:
    return bool(config.get(trait, family.bias_default)) if isinstance(trait, str) else trait


def _attention(config: Config, family: Family, hidden: int, window: int | None) -> tuple[Attention, int]:
    """Attention and its parameters outside matrices."""
    heads = _size(config, "heads")
    kv_heads = config.get("num_key_value_heads") if family.kind == "decoder" else heads
    kv_heads = _positive("num_key_value_heads", kv_heads or family.kv_heads_default or heads)
    if heads % kv_heads:
        raise BadInput(f"{heads} query heads do not divide into {kv_heads} key-value heads: mend the config")
    size = config.get("head_dim") or family.head_size_default or hidden // heads
    size = _positive("head_dim", size)
    qkv = (heads + 2 * kv_heads) * size
    others = qkv if _flag(config, family, family.qkv_bias) else 0
    others += hidden if _flag(config, family, family.output_bias) else 0
    others += heads if family.sinks else 0
    if not family.qk_norm_flag or config.get(family.qk_norm_flag):
        others += {"": 0, "head": 2 * size, "full": (heads + kv_heads) * size}[family.qk_norm]
    return (
        Attention(heads, kv_heads, size, size, hidden * qkv, heads * size * hidden, 2 * kv_heads * size, window),
        others,
    )


def _latent_attention(config: Config, family: Family, hidden: int, window: int | None) -> tuple[Attention, int]:
    """Multi-head latent attention (DeepSeek-V2, 2024): low-rank query and key-value paths, a shared rotated key.

    Counted expanded, as vLLM's estimator does: each new token is up-projected once to all heads' keys and values.
    """
    heads, latent = _size(config, "heads"), _required(config, "kv_lora_rank")
    plain, rotated = _required(config, "qk_nope_head_dim"), _required(config, "qk_rope_head_dim")
    value, query_rank = _required(config, "v_head_dim"), config.get("q_lora_rank")
    queries = heads * (plain + rotated)
    query_weights = hidden * queries if query_rank is None else query_rank * (hidden + queries)
    kv_weights = hidden * (latent + rotated) + latent * heads * (plain + value)
    others = latent + (query_rank or 0)  # norms of the latent vectors
    if config.get("attention_bias"):
        others += (query_rank or 0) + latent + rotated + hidden
    return (
        Attention(
            heads, heads, plain + rotated, value, query_weights + kv_weights, heads * value * hidden,
            latent + rotated, window,
        ),
        others,
    )  # fmt: skip


def _dense(config: Config, family: Family, hidden: int) -> tuple[FeedForward, int]:
    keys = ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim")
    width = next((config[key] for key in keys if config.get(key) is not None), None)
    if width is None:
        if "n_inner" not in config and "n_embd" not in config:
            raise BadInput("the config has no intermediate_size: is it a complete config.json?")
        width = 4 * hidden  # GPT-2's default
    width = _positive("intermediate_size", width)
    matrices = 3 if family.gated else 2
    biases = (matrices - 1) * width + hidden if _flag(config, family, family.ffn_bias) else 0
    return FeedForward(width, matrices * hidden * width), biases


def _mixture(config: Config, family: Family, hidden: int) -> tuple[FeedForward, int]:
    many = {"mixtral": "num_local_experts", "gpt_oss": "num_local_experts", "deepseek": "n_routed_experts"}
    experts = _required(config, many.get(family.moe, "num_experts"))
    chosen = _required(config, "num_experts_per_tok")
    if chosen > experts:
        raise BadInput(f"num_experts_per_tok is {chosen} of {experts} experts: mend the config")
    width = _required(config, "intermediate_size" if family.moe in ("mixtral", "gpt_oss") else "moe_intermediate_size")
    shared = 0
    if family.moe == "deepseek":
        shared = 3 * hidden * width * int(config.get("n_shared_experts") or 0)
    elif family.moe == "qwen2":
        shared = 3 * hidden * _required(config, "shared_expert_intermediate_size") + hidden  # and its sigmoid gate
    return (
        FeedForward(
            width,
            3 * hidden * width,
            experts,
            chosen,
            shared,
            hidden * experts,
            expert_biases=2 * width + hidden if family.moe == "gpt_oss" else 0,
        ),
        experts if family.router_correction else 0,
    )


def _embeddings(config: Config, family: Family, hidden: int, vocabulary: int) -> int:
    rows = vocabulary
    if family.positions:
        rows += _required(config, family.positions) + family.position_offset
    if family.segments:
        rows += _required(config, family.segments)
    norm = 2 * hidden if family.kind == "encoder" else 0
    return rows * hidden + norm
