"""FLOPs under the full convention against vLLM's own estimator, component by component; differences explained."""

from __future__ import annotations

from typing import Any

import pytest

from metering.architecture import architecture_from_config
from metering.flops import FlopsByPart, decode_flops, prefill_flops
from tests.unit.metering.model_configs import (
    DEEPSEEK_V3,
    GEMMA2_2B,
    GPT2,
    LLAMA_3_1_8B,
    MISTRAL_7B,
    MIXTRAL_8X7B,
    QWEN3_30B_A3B,
    SMOLLM2_135M,
)

perf = pytest.importorskip("vllm.v1.metrics.perf")

CHUNKS = [(1, 0), (100, 0), (60, 40), (3000, 5000)]
"""Tokens computed and context before them."""


def theirs(config: dict[str, Any], tokens: int, before: int, *, prefill: bool) -> dict[str, int]:
    """vLLM's estimate of one request in one step on one GPU."""
    hidden, layers = config.get("hidden_size", config.get("n_embd")), config.get("num_hidden_layers")
    layers = layers or config["n_layer"]
    heads = config.get("num_attention_heads", config.get("n_head"))
    both = {"num_hidden_layers": layers, "hidden_size": hidden, "activation_byte_size": 2, "pp_size": 1}
    attends = {**both, "num_attention_heads": heads, "tp_size": 1, "weight_byte_size": 2, "cache_byte_size": 2}
    if "kv_lora_rank" in config:
        latent = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "q_lora_rank")
        attention = perf.MLAAttentionMetrics(**attends, **{key: config[key] for key in latent})
    else:
        window = config.get("sliding_window")
        attention = perf.AttentionMetrics(
            **attends,
            num_key_value_heads=config.get("num_key_value_heads", heads),
            head_dim=config.get("head_dim", hidden // heads),
            sliding_window=window,
            num_swa_layers=0 if window is None else layers // (2 if config["model_type"] == "gemma2" else 1),
        )
    experts = config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts") or 0
    width = config.get("moe_intermediate_size") or config.get("intermediate_size", 4 * hidden)
    ffn = perf.FfnMetrics(
        **both,
        ffn_tp_size=1,
        ffn_ep_size=1,
        intermediate_size=config.get("intermediate_size", 4 * hidden),
        num_experts=experts,
        num_experts_per_tok=config.get("num_experts_per_tok", 1),
        moe_intermediate_size=width,
        num_shared_experts=config.get("n_shared_experts", 0),
        num_moe_layers=(layers - config.get("first_k_dense_replace", 0)) if experts else 0,
        weight_byte_size=2,
    )
    head = perf.UnembedMetrics(
        hidden_size=hidden, vocab_size=config["vocab_size"], weight_byte_size=2, activation_byte_size=2, tp_size=1
    )
    context = perf.ExecutionContext.from_single_request(tokens, before + tokens, prefill)
    parts = attention.get_num_flops_breakdown(context)
    return {
        "attention": parts.pop("attn_qk") + parts.pop("attn_av"),
        "output": parts.pop("out_proj"),
        "qkv": sum(parts.values()),
        "ffn": ffn.get_num_flops(context),
        "head": head.get_num_flops(context),
    }


def ours(config: dict[str, Any], tokens: int, before: int, *, prefill: bool) -> FlopsByPart:
    architecture = architecture_from_config(config)
    if prefill:
        return prefill_flops(architecture, tokens, before, attention="full")
    return decode_flops(architecture, tokens, before + tokens)


EQUAL = {"smollm2": SMOLLM2_135M, "llama": LLAMA_3_1_8B, "mistral": MISTRAL_7B, "gemma2": GEMMA2_2B}
ROUTED = {"mixtral": MIXTRAL_8X7B, "qwen3-moe": QWEN3_30B_A3B, "deepseek-v3": DEEPSEEK_V3}


@pytest.mark.parametrize(("tokens", "before"), CHUNKS)
@pytest.mark.parametrize("name", EQUAL)
def test_dense_models_agree_to_the_last_flop(name: str, tokens: int, before: int) -> None:
    mine = ours(EQUAL[name], tokens, before, prefill=True).as_dict()
    assert {part: mine[part] for part in ("qkv", "output", "attention", "ffn", "head")} == theirs(
        EQUAL[name], tokens, before, prefill=True
    )


@pytest.mark.parametrize("name", EQUAL)
def test_decode_agrees_to_the_last_flop(name: str) -> None:
    mine = ours(EQUAL[name], 1, 5000, prefill=False).as_dict()
    assert mine["total"] == sum(theirs(EQUAL[name], 1, 5000, prefill=False).values())


@pytest.mark.parametrize(("tokens", "before"), CHUNKS)
@pytest.mark.parametrize("name", ROUTED)
def test_mixtures_differ_by_the_router_which_vllm_leaves_out(name: str, tokens: int, before: int) -> None:
    config = ROUTED[name]
    mine, other = ours(config, tokens, before, prefill=True).as_dict(), theirs(config, tokens, before, prefill=True)
    router = sum(group.count * group.ffn.router_weights for group in architecture_from_config(config).layers)
    assert router > 0
    assert mine.pop("ffn") == other.pop("ffn") + 2 * tokens * router
    assert {part: mine[part] for part in other} == other


def test_ungated_models_differ_by_the_gate_that_vllm_assumes() -> None:
    mine, other = ours(GPT2, 100, 0, prefill=True), theirs(GPT2, 100, 0, prefill=True)
    assert mine.ffn * 3 == other["ffn"] * 2
    assert (mine.qkv, mine.attention, mine.head) == (other["qkv"], other["attention"], other["head"])
