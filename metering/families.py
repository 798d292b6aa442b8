"""What each model family adds to the plain transformer: biases, norms, tied heads, windows, learned positions.

Facts of the published model definitions, checked parameter by parameter against the ``transformers`` classes
in ``tests/integration/metering``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Family:
    """Traits of one ``model_type``. A string names the config key that decides; the trait's default follows it."""

    kind: Literal["decoder", "encoder"] = "decoder"
    gated: bool = True
    norms: int = 2
    """Hidden-size norms per layer."""
    norm_bias: bool = False
    final_norm: bool = True
    qkv_bias: bool | str = False
    output_bias: bool | str = False
    ffn_bias: bool | str = False
    bias_default: bool = False
    """Where the key of a bias is absent."""
    head_bias: bool = False
    qk_norm: Literal["", "head", "full"] = ""
    """Norm of queries and keys: one of a head's size for each, or over all heads."""
    qk_norm_flag: str = ""
    """Key that must be true for ``qk_norm``."""
    tied: bool = False
    """Where the config does not say."""
    positions: str = ""
    """Key of the number of learned positions."""
    position_offset: int = 0
    segments: str = ""
    """Key of the number of segment embeddings."""
    pooler: bool = False
    kv_heads_default: int | None = None
    """Where the config does not say; None: as many as query heads."""
    head_size_default: int | None = None
    window: Literal["", "all", "flagged", "even", "pattern"] = ""
    """Layers that ``sliding_window`` clamps where no ``layer_types`` says: all; those from ``max_window_layers``
    if ``use_sliding_window``; the even ones; all but each ``sliding_window_pattern``-th."""
    window_pattern: int = 6
    """Where ``pattern`` applies and the config does not say."""
    moe: Literal["", "mixtral", "qwen2", "qwen3", "deepseek", "gpt_oss"] = ""
    latent: bool = False
    """Multi-head latent attention."""
    router_correction: bool = False
    """The router has one bias per expert."""
    sinks: bool = False
    """One learned attention sink per query head."""
    relative_buckets: str = ""
    """Key of the number of relative-position buckets, one table for the model."""


_BERT = Family(
    kind="encoder", gated=False, norm_bias=True, final_norm=False, qkv_bias=True, output_bias=True, ffn_bias=True,
    positions="max_position_embeddings", segments="type_vocab_size", pooler=True, tied=True,
)  # fmt: skip
_LLAMA = Family(qkv_bias="attention_bias", output_bias="attention_bias", ffn_bias="mlp_bias")

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "granite": _LLAMA,
    "smollm3": Family(qkv_bias="attention_bias", output_bias="attention_bias", ffn_bias="mlp_bias", tied=True),
    "mistral": Family(kv_heads_default=8, window="all"),
    "mixtral": Family(kv_heads_default=8, window="all", moe="mixtral"),
    "qwen2": Family(qkv_bias=True, kv_heads_default=32, window="flagged"),
    "qwen2_moe": Family(qkv_bias="qkv_bias", bias_default=True, kv_heads_default=16, window="flagged", moe="qwen2"),
    "qwen3": Family(
        qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="head", kv_heads_default=32,
        head_size_default=128, window="flagged",
    ),
    "qwen3_moe": Family(
        qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="head", kv_heads_default=4,
        window="flagged", moe="qwen3",
    ),
    "gemma": Family(
        qkv_bias="attention_bias", output_bias="attention_bias", tied=True, kv_heads_default=16,
        head_size_default=256,
    ),
    "gemma2": Family(
        qkv_bias="attention_bias", output_bias="attention_bias", tied=True, norms=4, kv_heads_default=4,
        head_size_default=256, window="even",
    ),
    "gemma3_text": Family(
        qkv_bias="attention_bias", output_bias="attention_bias", tied=True, norms=4, qk_norm="head",
        kv_heads_default=4, head_size_default=256, window="pattern",
    ),
    "phi": Family(gated=False, norms=1, norm_bias=True, qkv_bias=True, output_bias=True, ffn_bias=True, head_bias=True),
    "phi3": Family(window="all"),
    "olmo2": Family(qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="full"),
    "starcoder2": Family(
        gated=False, norm_bias=True, qkv_bias="use_bias", output_bias="use_bias", ffn_bias="use_bias",
        bias_default=True, tied=True, kv_heads_default=2, window="all",
    ),
    "gpt2": Family(
        gated=False, norm_bias=True, qkv_bias=True, output_bias=True, ffn_bias=True, tied=True, positions="n_positions",
    ),
    "gpt_neox": Family(
        gated=False, norm_bias=True, qkv_bias="attention_bias", output_bias="attention_bias", ffn_bias=True,
        bias_default=True,
    ),
    "opt": Family(
        gated=False, norm_bias=True, qkv_bias="enable_bias", output_bias="enable_bias", ffn_bias="enable_bias",
        bias_default=True, tied=True, positions="max_position_embeddings", position_offset=2,
    ),
    "olmo": Family(qkv_bias="attention_bias", output_bias="attention_bias", norms=0, final_norm=False),
    "olmo3": Family(
        qkv_bias="attention_bias", output_bias="attention_bias", qk_norm="full", window="pattern", window_pattern=4,
    ),
    "cohere": Family(
        qkv_bias="attention_bias", output_bias="attention_bias", norms=1, tied=True, qk_norm="full",
        qk_norm_flag="use_qk_norm",
    ),
    "cohere2": Family(
        qkv_bias="attention_bias", output_bias="attention_bias", norms=1, tied=True, window="pattern",
        window_pattern=4,
    ),
    "glm": Family(qkv_bias="attention_bias", bias_default=True, kv_heads_default=2, head_size_default=128),
    "glm4": Family(qkv_bias="attention_bias", bias_default=True, norms=4, kv_heads_default=2, head_size_default=128),
    "glm4_moe": Family(
        qkv_bias="attention_bias", kv_heads_default=8, qk_norm="head", qk_norm_flag="use_qk_norm", moe="deepseek",
        router_correction=True,
    ),
    "seed_oss": Family(
        qkv_bias="attention_bias", output_bias="attention_out_bias", ffn_bias="mlp_bias", kv_heads_default=8,
        head_size_default=128,
    ),
    "ernie4_5": Family(
        qkv_bias="use_bias", output_bias="use_bias", ffn_bias="use_bias", tied=True, kv_heads_default=2,
        head_size_default=128,
    ),
    "helium": Family(qkv_bias="attention_bias", ffn_bias="mlp_bias", kv_heads_default=20),
    "nemotron": Family(
        gated=False, norm_bias=True, qkv_bias="attention_bias", output_bias="attention_bias", ffn_bias="mlp_bias",
    ),
    "granitemoe": Family(qkv_bias="attention_bias", output_bias="attention_bias", moe="mixtral"),
    "gpt_oss": Family(
        qkv_bias="attention_bias", output_bias="attention_bias", bias_default=True, kv_heads_default=8,
        head_size_default=64, window="even", moe="gpt_oss", router_correction=True, sinks=True,
    ),
    "deepseek_v2": Family(latent=True, moe="deepseek"),
    "deepseek_v3": Family(latent=True, moe="deepseek", router_correction=True),
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "distilbert": Family(
        kind="encoder", gated=False, norm_bias=True, final_norm=False, qkv_bias=True, output_bias=True, ffn_bias=True,
        positions="max_position_embeddings", tied=True,
    ),
    "mpnet": Family(
        kind="encoder", gated=False, norm_bias=True, final_norm=False, qkv_bias=True, output_bias=True, ffn_bias=True,
        positions="max_position_embeddings", pooler=True, tied=True, relative_buckets="relative_attention_num_buckets",
    ),
}  # fmt: skip
"""By ``model_type`` of the Hugging Face config."""

ALIASES = {"kimi_k2": "deepseek_v3", "gemma3": "gemma3_text"}
"""``model_type`` that is another family's text model under another name."""
