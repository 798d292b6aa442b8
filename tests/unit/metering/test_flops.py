"""FLOPs by part: exact figures, and the laws that any count must keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.architecture import ModelArchitecture, architecture_from_config
from metering.errors import BadInput
from metering.flops import FlopsByPart, decode_flops, encode_flops, prefill_flops, verify_flops
from metering.pairs import causal_pairs, full_pairs
from tests.unit.metering.model_configs import (
    DEEPSEEK_V3,
    GEMMA2_2B,
    GPT2,
    LLAMA_3_1_8B,
    MINILM_L6,
    MIXTRAL_8X7B,
    TOTALS,
)

LLAMA = architecture_from_config(LLAMA_3_1_8B)
DECODERS = [architecture_from_config(config) for config, _, _ in TOTALS.values() if config["model_type"] in (
    "llama", "mistral", "mixtral", "gemma2", "gemma3_text", "gpt2", "deepseek_v3", "qwen3_moe", "gpt_oss",
)]  # fmt: skip
decoders = st.sampled_from(DECODERS)
tokens = st.integers(0, 9000)


def test_one_llama_decode_token_at_context_1024() -> None:
    flops = decode_flops(LLAMA, 1, 1024)
    assert flops.total == 15_546_187_776
    assert flops == FlopsByPart(
        qkv=2 * 32 * 4096 * (32 + 16) * 128,
        output=2 * 32 * 4096 * 4096,
        attention=4 * 32 * 32 * 128 * 1024,
        ffn=2 * 32 * 3 * 4096 * 14336,
        head=2 * 4096 * 128256,
    )


def test_prefill_attends_half_the_square_and_needs_one_row_of_logits() -> None:
    flops = prefill_flops(LLAMA, 100)
    assert flops.attention == 4 * 32 * 32 * 128 * (100 * 101 // 2)
    assert flops.head == 2 * 4096 * 128256
    assert flops.qkv == 100 * decode_flops(LLAMA, 1, 1).qkv


def test_full_convention_bills_computed_tokens_times_context() -> None:
    causal, full = prefill_flops(LLAMA, 60, 40), prefill_flops(LLAMA, 60, 40, attention="full")
    assert causal.attention == 4 * 32 * 32 * 128 * (100 * 101 // 2 - 40 * 41 // 2)
    assert full.attention == 4 * 32 * 32 * 128 * 60 * 100
    assert (causal.attention_convention, full.attention_convention) == ("causal", "full")
    assert causal.qkv == full.qkv


def test_mixture_counts_the_experts_that_run_and_the_router() -> None:
    mixtral = architecture_from_config(MIXTRAL_8X7B)
    assert decode_flops(mixtral, 1, 1).ffn == 2 * 32 * (2 * 3 * 4096 * 14336 + 4096 * 8)


def test_latent_attention_follows_its_low_rank_chain() -> None:
    deepseek = architecture_from_config(DEEPSEEK_V3)
    flops = decode_flops(deepseek, 1, 10)
    chain = 7168 * 1536 + 1536 * 128 * 192 + 7168 * (512 + 64) + 512 * 128 * (128 + 128)
    assert flops.qkv == 2 * 61 * chain
    assert flops.attention == 61 * 10 * 2 * 128 * (192 + 128)
    assert flops.output == 2 * 61 * 128 * 128 * 7168


def test_ungated_feed_forward_has_two_matrices() -> None:
    assert decode_flops(architecture_from_config(GPT2), 1, 1).ffn == 2 * 12 * 2 * 768 * 3072


def test_encoder_attends_both_ways_and_has_no_head() -> None:
    flops = encode_flops(architecture_from_config(MINILM_L6), 128)
    assert flops.attention == 6 * 4 * 12 * 32 * 128 * 128
    assert flops.head == 0
    assert flops.attention_convention == "full"


def test_decoder_used_for_embeddings_stays_causal() -> None:
    flops = encode_flops(LLAMA, 10)
    assert flops == prefill_flops(LLAMA, 10, logits_rows=0)


def test_lora_adds_two_flops_per_adapter_weight() -> None:
    adapted = LLAMA.with_lora(8, ("q", "o", "down"))
    extra = 2 * 32 * 8
    plain, with_adapter = decode_flops(LLAMA, 1, 5), decode_flops(adapted, 1, 5)
    assert with_adapter.qkv - plain.qkv == extra * (4096 + 4096)
    assert with_adapter.output - plain.output == extra * (4096 + 4096)
    assert with_adapter.ffn - plain.ffn == extra * (4096 + 14336)


def test_rejected_speculative_tokens_are_executed_but_not_useful() -> None:
    executed, useful = verify_flops(LLAMA, 5, 100), decode_flops(LLAMA, 2, 100)
    assert executed.total > useful.total
    assert executed.qkv * 2 == useful.qkv * 5


def test_sliding_window_clamps_each_decode_context() -> None:
    gemma = architecture_from_config(GEMMA2_2B)
    per_pair = 13 * 4 * 8 * 256
    assert decode_flops(gemma, 3, 4095).attention == per_pair * ((4095 + 4096 + 4096) + (4095 + 4096 + 4097))


@given(decoders, tokens, tokens, tokens)
def test_chunks_of_a_prefill_sum_to_the_whole(architecture: ModelArchitecture, cached: int, one: int, two: int) -> None:
    whole = prefill_flops(architecture, one + two, cached, logits_rows=0)
    first = prefill_flops(architecture, one, cached, logits_rows=0)
    second = prefill_flops(architecture, two, cached + one, logits_rows=0)
    assert first + second == whole


@given(decoders, st.integers(1, 500), tokens)
def test_decoding_costs_what_prefilling_the_same_positions_costs(
    architecture: ModelArchitecture, steps: int, before: int
) -> None:
    decoded = decode_flops(architecture, steps, before + 1)
    prefilled = prefill_flops(architecture, steps, before, logits_rows=steps)
    assert decoded == prefilled


@given(decoders, st.integers(1, 400), st.integers(1, 9000))
def test_decode_steps_add_up_one_by_one(architecture: ModelArchitecture, steps: int, context: int) -> None:
    summed = FlopsByPart()
    for step in range(steps):
        summed = summed + decode_flops(architecture, 1, context + step)
    assert decode_flops(architecture, steps, context) == summed


@given(decoders, st.integers(1, 9000), st.data())
def test_a_cached_prefix_never_costs_more(architecture: ModelArchitecture, prompt: int, data: st.DataObject) -> None:
    cached = data.draw(st.integers(0, prompt - 1))
    assert prefill_flops(architecture, prompt - cached, cached).total <= prefill_flops(architecture, prompt).total


@given(decoders, st.integers(1, 9000), tokens)
def test_causal_never_exceeds_full(architecture: ModelArchitecture, computed: int, cached: int) -> None:
    causal = prefill_flops(architecture, computed, cached)
    full = prefill_flops(architecture, computed, cached, attention="full")
    assert causal.attention <= full.attention
    assert causal.total - causal.attention == full.total - full.attention


@given(st.integers(0, 300), st.integers(0, 300), st.one_of(st.none(), st.integers(1, 400)))
def test_pairs_in_closed_form_equal_the_sum(computed: int, cached: int, window: int | None) -> None:
    limit = window or 10**9
    assert causal_pairs(computed, cached, window) == sum(min(cached + i, limit) for i in range(1, computed + 1))
    assert full_pairs(computed, cached, window) == computed * min(cached + computed, limit)


def test_no_tokens_no_flops() -> None:
    assert prefill_flops(LLAMA, 0, 50).total == 0
    assert decode_flops(LLAMA, 0, 0).total == 0


@pytest.mark.parametrize("count", [-1, 1.5, True], ids=["negative", "fraction", "bool"])
def test_token_counts_that_are_none_are_refused(count: object) -> None:
    with pytest.raises(BadInput, match="tokens must be"):
        prefill_flops(LLAMA, count)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="tokens must be"):
        decode_flops(LLAMA, count, 5)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="cached tokens must be"):
        prefill_flops(LLAMA, 5, count)  # type: ignore[arg-type]


def test_a_decode_step_attends_at_least_to_itself() -> None:
    with pytest.raises(BadInput, match="context of a decode step must be at least 1"):
        decode_flops(LLAMA, 1, 0)


def test_conventions_do_not_mix_in_a_sum() -> None:
    with pytest.raises(BadInput, match="convention"):
        prefill_flops(LLAMA, 5) + prefill_flops(LLAMA, 5, attention="full")
