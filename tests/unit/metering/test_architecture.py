"""Reading configs: counts of public models, what each trait changes, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.architecture import architecture_from_config, load_architecture
from metering.errors import BadInput, UnknownArchitecture
from tests.unit.metering.model_configs import (
    DEEPSEEK_V3,
    GEMMA2_2B,
    GEMMA3_1B,
    GPT2,
    GPT_OSS_20B,
    LLAMA_3_1_8B,
    MISTRAL_7B,
    QWEN2_5_7B,
    SMOLLM2_135M,
    TOTALS,
)


@pytest.mark.parametrize("name", TOTALS)
def test_public_parameter_counts(name: str) -> None:
    config, total, active = TOTALS[name]
    architecture = architecture_from_config(config)
    assert architecture.parameters_total == total
    assert architecture.parameters_active == active


def test_llama_matmul_parameters_exclude_embedding_and_norms() -> None:
    assert architecture_from_config(LLAMA_3_1_8B).matmul_parameters == 7_504_658_432


def test_tied_head_is_multiplied_with_though_stored_once() -> None:
    tied = architecture_from_config(SMOLLM2_135M)
    untied = architecture_from_config({**SMOLLM2_135M, "tie_word_embeddings": False})
    assert tied.matmul_parameters == untied.matmul_parameters
    assert untied.parameters_total - tied.parameters_total == 576 * 49152


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA_3_1_8B, 2 * 32 * 8 * 128 * 2),
        ({**LLAMA_3_1_8B, "torch_dtype": "float32"}, 2 * 32 * 8 * 128 * 4),
        (SMOLLM2_135M, 2 * 30 * 3 * 64 * 2),
        (DEEPSEEK_V3, 61 * (512 + 64) * 2),
        (GPT2, 2 * 12 * 768 * 4),
    ],
    ids=["llama", "llama-fp32", "smollm2", "deepseek-latent", "gpt2-without-dtype"],
)
def test_kv_bytes_at_the_dtype_of_the_config(config: dict[str, Any], expected: int) -> None:
    assert architecture_from_config(config).kv_bytes_per_token() == expected


def windows(config: dict[str, Any]) -> dict[int | None, int]:
    return {group.attention.window: group.count for group in architecture_from_config(config).layers}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MISTRAL_7B, {4096: 32}),
        ({**MISTRAL_7B, "sliding_window": None}, {None: 32}),
        (QWEN2_5_7B, {None: 28}),
        ({**QWEN2_5_7B, "use_sliding_window": True, "max_window_layers": 20}, {None: 20, 131072: 8}),
        (GEMMA2_2B, {4096: 13, None: 13}),
        (GEMMA3_1B, {512: 22, None: 4}),
        (GPT_OSS_20B, {128: 12, None: 12}),
        ({**GEMMA2_2B, "layer_types": ["sliding_attention"] * 26}, {4096: 26}),
    ],
    ids=["mistral", "none", "qwen-off", "qwen-on", "gemma2", "gemma3", "gpt-oss", "layer-types"],
)
def test_sliding_window_by_layer(config: dict[str, Any], expected: dict[int | None, int]) -> None:
    assert windows(config) == expected


def test_first_layers_of_a_mixture_stay_dense() -> None:
    groups = architecture_from_config(DEEPSEEK_V3).layers
    assert {(group.count, group.ffn.experts) for group in groups} == {(3, 1), (58, 256)}


def test_multimodal_config_counts_its_text_model_and_says_so() -> None:
    text = {key: value for key, value in GEMMA3_1B.items() if key != "torch_dtype"}
    architecture = architecture_from_config(
        {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}, "torch_dtype": "bfloat16"}
    )
    assert architecture.parameters_total == 999_885_952
    assert architecture.dtype == "bfloat16"
    del text["num_attention_heads"], text["vocab_size"]
    shortened = architecture_from_config({"model_type": "gemma3", "text_config": text, "torch_dtype": "bfloat16"})
    assert shortened.vocabulary_size == 262_208
    assert "text model" in architecture.notes[0]


@pytest.mark.parametrize(
    ("quantisation", "width"),
    [
        ({"quant_method": "fp8"}, 1.0),
        ({"quant_method": "awq", "bits": 4}, 0.5),
        ({"quant_method": "gptq", "bits": 8}, 1.0),
        ({"quant_method": "mxfp4"}, 0.5),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1.0),
    ],
)
def test_quantisation_narrows_weights_but_not_the_cache(quantisation: dict[str, Any], width: float) -> None:
    architecture = architecture_from_config({**LLAMA_3_1_8B, "quantization_config": quantisation})
    assert architecture.weight_bytes_each == width
    assert architecture.kv_bytes_per_token() == 131072


def test_unknown_quantisation_width_is_noted_not_guessed() -> None:
    architecture = architecture_from_config({**LLAMA_3_1_8B, "quantization_config": {"quant_method": "novel"}})
    assert architecture.weight_bytes_each == 2.0
    assert "novel" in architecture.notes[-1]


def test_missing_dtype_is_noted() -> None:
    assert any("float32" in note for note in architecture_from_config(GPT2).notes)


def test_lora_adds_rank_times_in_plus_out_to_each_target() -> None:
    plain = architecture_from_config(LLAMA_3_1_8B)
    adapted = plain.with_lora(16, ("q", "v", "o", "up"))
    each = 16 * ((4096 + 4096) + (4096 + 1024) + (4096 + 4096) + (4096 + 14336))
    assert adapted.parameters_total - plain.parameters_total == 32 * each


@pytest.mark.parametrize(
    ("config", "rank", "targets", "says"),
    [
        (LLAMA_3_1_8B, 0, ("q",), "rank"),
        (LLAMA_3_1_8B, 8, ("w",), "unknown LoRA target 'w'"),
        (DEEPSEEK_V3, 8, ("q",), "latent"),
        (TOTALS["mixtral-8x7b"][0], 8, ("up",), "mixture"),
    ],
)
def test_lora_that_cannot_be_counted_is_refused(
    config: dict[str, Any], rank: int, targets: tuple[Any, ...], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        architecture_from_config(config).with_lora(rank, targets)


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(UnknownArchitecture, match=r"unknown architecture 'qwen33'; nearest: qwen3"):
        architecture_from_config({**LLAMA_3_1_8B, "model_type": "qwen33"})


def test_unknown_architecture_may_be_assumed_and_says_so() -> None:
    architecture = architecture_from_config({**LLAMA_3_1_8B, "model_type": "yi2"}, assume="llama")
    assert architecture.parameters_total == 8_030_261_248
    assert "counted as llama" in architecture.notes[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": None}, "no num_hidden_layers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers in the config must be a positive whole number, got 0"),
        ({"num_hidden_layers": -2}, "got -2"),
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"vocab_size": None}, "no vocab_size"),
        ({"intermediate_size": None}, "no intermediate_size"),
        ({"num_key_value_heads": 5}, "do not divide"),
        ({"torch_dtype": "bfloat61"}, "unknown dtype 'bfloat61' in the config; nearest: bfloat16"),
        ({"model_type": None}, "no model_type"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_config_that_cannot_be_counted_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        architecture_from_config({**LLAMA_3_1_8B, **change})


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.floats(), st.text(max_size=3), st.lists(st.integers(0, 3)),
    st.dictionaries(st.text(max_size=2), st.integers()),
)  # fmt: skip


@given(st.sampled_from(sorted(TOTALS)), st.data())
def test_a_damaged_config_is_counted_or_refused_never_a_crash(name: str, data: st.DataObject) -> None:
    config = dict(TOTALS[name][0])
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3)):
        config[key] = data.draw(JUNK)
    try:
        architecture = architecture_from_config(config)
    except BadInput:
        return
    assert architecture.parameters_total >= architecture.parameters_active > 0


def test_layer_types_must_name_every_layer() -> None:
    with pytest.raises(BadInput, match="names 3 layers of 26"):
        architecture_from_config({**GEMMA2_2B, "layer_types": ["full_attention"] * 3})


def test_loads_a_directory_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_3_1_8B))
    assert load_architecture(tmp_path) == load_architecture(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("text", "says"), [("{", "is not JSON"), ("[1]", "does not hold a JSON object")], ids=["broken", "list"]
)
def test_file_that_is_no_config_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match=says):
        load_architecture(tmp_path)


def test_directory_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no config\.json"):
        load_architecture(tmp_path)


@pytest.mark.parametrize("name", ["owner/name", "meta-llama/Llama-3.1-8B", "Qwen/Qwen2.5-0.5B"])
def test_an_owner_and_a_name_are_a_hub_id_dots_and_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def config(model: str) -> dict[str, Any]:
        asked.append(model)
        return LLAMA_3_1_8B

    monkeypatch.setattr("metering.architecture._hub_config", config)
    assert load_architecture(name).parameters_total == 8_030_261_248
    assert asked == [name]


def test_missing_path_is_refused_without_asking_a_hub(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no model at"):
        load_architecture(tmp_path / "nowhere")
