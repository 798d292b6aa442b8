"""The layers that a Hugging Face config describes, by the traits of its family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metering.errors import BadInput
from metering.families import Family
from metering.shape import Attention, FeedForward, LayerGroup

Config = Mapping[str, Any]

_NAMES = {
    "hidden": ("hidden_size", "n_embd", "dim", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "vocabulary": ("vocab_size",),
}


def size_of(config: Config, what: str) -> int:
    for key in _NAMES[what]:
        if config.get(key) is not None:
            return positive(key, config[key])
    raise BadInput(f"the config has no {_NAMES[what][0]}: is it a model's config.json?")


def positive(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{key} in the config must be a positive whole number, got {value!r}")
    return value


def required(config: Config, key: str) -> int:
    if config.get(key) is None:
        raise BadInput(f"the config has no {key}: is it a complete config.json?")
    return positive(key, config[key])


def optional(config: Config, key: str, default: int, least: int = 1) -> int:
    """A whole number of at least ``least``; the default where the key is absent or null."""
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{key} in the config must be a whole number of at least {least}, got {value!r}")
    return value


def windows_of(config: Config, family: Family, count: int) -> list[int | None]:
    """The sliding window of each layer, None where it attends to everything."""
    window = config.get("sliding_window")
    if window is None and family.window == "pattern":
        window = 4096  # default of the config classes with a pattern: Gemma 3, Cohere 2, OLMo 3
    if window is None or not family.window or (family.window == "flagged" and not config.get("use_sliding_window")):
        return [None] * count
    window = positive("sliding_window", window)
    types = config.get("layer_types")
    if isinstance(types, list):
        if len(types) != count:
            raise BadInput(f"layer_types names {len(types)} layers of {count}: mend the config")
        return [window if "sliding" in str(one) else None for one in types]
    pattern = optional(config, "_sliding_window_pattern", family.window_pattern)
    pattern = optional(config, "sliding_window_pattern", pattern)
    full_until = optional(config, "max_window_layers", count, 0)
    sliding = {
        "all": set(range(count)),
        "flagged": set(range(full_until, count)),
        "even": set(range(0, count, 2)),
        "pattern": {index for index in range(count) if (index + 1) % pattern},
    }[family.window]
    return [window if index in sliding else None for index in range(count)]


def is_sparse(config: Config, family: Family, index: int) -> bool:
    """Whether this layer's feed-forward block is a mixture of experts."""
    if family.moe in ("qwen2", "qwen3"):
        step = optional(config, "decoder_sparse_step", 1)
        dense = config.get("mlp_only_layers") or []
        if not isinstance(dense, list):
            raise BadInput(f"mlp_only_layers in the config must be a list, got {dense!r}")
        return index not in dense and (index + 1) % step == 0 and optional(config, "num_experts", 0, 0) > 0
    if family.moe == "deepseek":
        step = optional(config, "moe_layer_freq", 1)
        first = optional(config, "first_k_dense_replace", 0, 0)
        return optional(config, "n_routed_experts", 0, 0) > 0 and index >= first and index % step == 0
    return bool(family.moe)


def layer_of(config: Config, family: Family, hidden: int, count: int, window: int | None, sparse: bool) -> LayerGroup:
    attention, norms = (_latent_attention if family.latent else _attention)(config, family, hidden, window)
    ffn, biases = _mixture(config, family, hidden) if sparse else _dense(config, family, hidden)
    others = norms + biases + family.norms * hidden * (2 if family.norm_bias else 1)
    return LayerGroup(count, attention, ffn, others)


def _flag(config: Config, family: Family, trait: bool | str) -> bool:
    return bool(config.get(trait, family.bias_default)) if isinstance(trait, str) else trait


def _attention(config: Config, family: Family, hidden: int, window: int | None) -> tuple[Attention, int]:
    """Attention and its parameters outside matrices."""
    heads = size_of(config, "heads")
    kv_heads = heads
    if family.kind == "decoder":
        kv_heads = optional(config, "num_key_value_heads", family.kv_heads_default or heads)
    if heads % kv_heads:
        raise BadInput(f"{heads} query heads do not divide into {kv_heads} key-value heads: mend the config")
    size = positive("head_dim", optional(config, "head_dim", family.head_size_default or hidden // heads))
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
    heads, latent = size_of(config, "heads"), required(config, "kv_lora_rank")
    plain, rotated = required(config, "qk_nope_head_dim"), required(config, "qk_rope_head_dim")
    value, query_rank = required(config, "v_head_dim"), optional(config, "q_lora_rank", 0)
    queries = heads * (plain + rotated)
    query_weights = query_rank * (hidden + queries) if query_rank else hidden * queries
    kv_weights = hidden * (latent + rotated) + latent * heads * (plain + value)
    others = latent + query_rank  # norms of the latent vectors
    if config.get("attention_bias"):
        others += query_rank + latent + rotated + hidden
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
    width = positive("intermediate_size", width)
    matrices = 3 if family.gated else 2
    biases = (matrices - 1) * width + hidden if _flag(config, family, family.ffn_bias) else 0
    return FeedForward(width, matrices * hidden * width), biases


def _mixture(config: Config, family: Family, hidden: int) -> tuple[FeedForward, int]:
    many = {"mixtral": "num_local_experts", "gpt_oss": "num_local_experts", "deepseek": "n_routed_experts"}
    experts = required(config, many.get(family.moe, "num_experts"))
    chosen = required(config, "num_experts_per_tok")
    if chosen > experts:
        raise BadInput(f"num_experts_per_tok is {chosen} of {experts} experts: mend the config")
    width = required(config, "intermediate_size" if family.moe in ("mixtral", "gpt_oss") else "moe_intermediate_size")
    shared = 0
    if family.moe == "deepseek":
        shared = 3 * hidden * width * optional(config, "n_shared_experts", 0, 0)
    elif family.moe == "qwen2":
        shared = 3 * hidden * required(config, "shared_expert_intermediate_size") + hidden  # and its sigmoid gate
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
