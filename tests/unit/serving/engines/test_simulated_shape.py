from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest

from metering.architecture import architecture_from_config
from metering.flops import decode_flops, prefill_flops
from serving.engines.simulated import SIMULATED_CONFIG
from serving.engines.simulated_shape import shape_with
from serving.tuning.engine_model import FlopCount

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "dtype": "bfloat16",
}


@pytest.mark.parametrize("config", [SMALL, SIMULATED_CONFIG])
def test_the_shape_has_the_flops_of_the_model_that_was_fitted(config: dict[str, Any]) -> None:
    real = architecture_from_config(config)
    same = architecture_from_config(shape_with(FlopCount.of(real)))
    assert astuple(FlopCount.of(same)) == pytest.approx(astuple(FlopCount.of(real)), rel=1e-6)
    assert prefill_flops(same, 300, 100).total == pytest.approx(prefill_flops(real, 300, 100).total, rel=1e-6)
    assert decode_flops(same, 50, 301).total == pytest.approx(decode_flops(real, 50, 301).total, rel=1e-6)
