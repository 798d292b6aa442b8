"""Every known family, counted against the classes that load its checkpoints (built on the meta device: no memory)."""

from __future__ import annotations

import warnings

import pytest

from metering.architecture import architecture_from_config
from metering.families import FAMILIES
from tests.unit.metering.model_configs import TOTALS

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", TOTALS)
def test_parameter_count_equals_that_of_the_transformers_class(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    config = dict(TOTALS[name][0])
    architecture = architecture_from_config(config)
    config.pop("quantization_config", None)
    settings = AutoConfig.for_model(config.pop("model_type"), **config)
    loader = AutoModelForCausalLM if architecture.kind == "decoder" else AutoModel
    with torch.device("meta"):
        model = loader.from_config(settings)
    parameters = {id(parameter): parameter.numel() for parameter in model.parameters()}
    corrections = sum(buffer.numel() for key, buffer in model.named_buffers() if "e_score_correction_bias" in key)
    assert sum(parameters.values()) + corrections == architecture.parameters_total


def test_every_family_has_a_model_to_be_counted_against() -> None:
    same_layers_as_another = {"granite", "smollm3", "xlm-roberta", "camembert"}
    assert {config["model_type"] for config, _, _ in TOTALS.values()} | same_layers_as_another == set(FAMILIES)
