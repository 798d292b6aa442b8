"""An encoder's work is that of its formula, and a source on the host alone pays for the host alone."""

from __future__ import annotations

import pytest

from metering.architecture import architecture_from_config
from metering.encoder_profile import EncoderProfile
from metering.flops import encode_flops
from metering.model_profile import ModelProfile
from metering.weights import WeightKind, usable_kind
from metering.work import WorkRecord

BERT = {
    "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
}  # fmt: skip
ARCHITECTURE = architecture_from_config(BERT)


def text(tokens: int) -> WorkRecord:
    return WorkRecord("r", "e", "t", 0.0, 1.0, prefill_tokens=tokens)


@pytest.mark.parametrize("tokens", [0, 1, 17, 256])
def test_flops_are_those_of_the_encoders_formula(tokens: int) -> None:
    profile = EncoderProfile("e", ARCHITECTURE, 4.0, 1e11, 1e10)
    work = profile.work(text(tokens))
    assert work is not None
    assert work.flops == work.flops_prefill == profile.flops(tokens) == encode_flops(ARCHITECTURE, tokens).total
    assert work.kv_bytes == 0
    assert (work.weight_bytes_prefill > 0) == (tokens > 0)


def test_both_directions_are_attended_to_unlike_in_a_decoder() -> None:
    encoder, decoder = EncoderProfile("e", ARCHITECTURE), ModelProfile("d", ARCHITECTURE)
    seen, causal = encoder.work(text(100)), decoder.work(text(100))
    assert seen is not None
    assert causal is not None
    assert seen.flops > causal.flops


def test_an_unknown_family_has_no_flops_and_is_weighed_by_tokens() -> None:
    profile = EncoderProfile("e", None, 4.0, 1e11, 1e10)
    assert profile.work(text(3)) is None
    assert usable_kind(WeightKind.ROOFLINE_TIME, profile, None) is WeightKind.TOKENS
