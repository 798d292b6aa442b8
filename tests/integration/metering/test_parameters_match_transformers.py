"""Every known family, counted against the classes that load its checkpoints (built on the meta device: no memory)."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from metering.architecture import architecture_from_config
from metering.families import FAMILIES
from tests.unit.metering.model_configs import TOTALS

torch = pytest.importorskip("torch")


def count_with_transformers(config: dict[str, Any]) -> tuple[Any, int]:
    """The config object and the number of parameters; a router's correction, stored as a buffer, is counted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    keys = {key: value for key, value in config.items() if key not in ("model_type", "quantization_config")}
    settings = AutoConfig.for_model(config["model_type"], **keys)
    decoder = FAMILIES[config["model_type"]].kind == "decoder"
    with torch.device("meta"):
        model = (AutoModelForCausalLM if decoder else AutoModel).from_config(settings)
    parameters = {id(parameter): parameter.numel() for parameter in model.parameters()}
    corrections = sum(buffer.numel() for key, buffer in model.named_buffers() if "e_score_correction_bias" in key)
    return settings, sum(parameters.values()) + corrections


@pytest.mark.parametrize("name", TOTALS)
def test_parameter_count_equals_that_of_the_transformers_class(name: str) -> None:
    config = TOTALS[name][0]
    assert count_with_transformers(config)[1] == architecture_from_config(config).parameters_total


SMALL = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {
    "num_local_experts": 8, "num_experts_per_tok": 2, "n_routed_experts": 8, "n_shared_experts": 1,
    "moe_intermediate_size": 48, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
OTHERS: dict[str, list[dict[str, Any]]] = {
    "granite": [{}, {"tie_word_embeddings": True}], "smollm3": [{}], "olmo": [{}], "olmo3": [{}],
    "cohere": [{}, {"use_qk_norm": True}], "cohere2": [{}], "glm": [{}], "glm4": [{}, {"attention_bias": False}],
    "glm4_moe": [EXPERTS, {**EXPERTS, "use_qk_norm": True, "attention_bias": True}],
    "seed_oss": [{"attention_bias": True}],
    "ernie4_5": [{}, {"use_bias": True}], "helium": [{}], "nemotron": [{}, {"attention_bias": True, "mlp_bias": True}],
    "granitemoe": [EXPERTS], "llama": [{"attention_bias": True, "mlp_bias": True}], "qwen3": [{"attention_bias": True}],
    "deepseek_v2": [{**EXPERTS, "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
                     "v_head_dim": 16, "attention_bias": True}],
    "xlm-roberta": [{"max_position_embeddings": 40, "type_vocab_size": 1}],
    "camembert": [{"max_position_embeddings": 40, "type_vocab_size": 1}],
}  # fmt: skip
"""Variants in little, of families and options that no model above has."""


@pytest.mark.parametrize(("family", "change"), [(name, one) for name, many in OTHERS.items() for one in many])
def test_variant_in_little_equals_that_of_the_transformers_class(family: str, change: dict[str, Any]) -> None:
    config = {**SMALL, **change, "model_type": family}
    settings, total = count_with_transformers(config)
    if "tie_word_embeddings" not in config and FAMILIES[family].kind == "decoder":
        assert settings.tie_word_embeddings == FAMILIES[family].tied
    assert architecture_from_config(config).parameters_total == total


def test_every_family_is_counted_against_its_class() -> None:
    assert {config["model_type"] for config, _, _ in TOTALS.values()} | set(OTHERS) == set(FAMILIES)
