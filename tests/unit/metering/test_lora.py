"""A LoRA adapter's FLOPs from its PEFT configuration."""

from __future__ import annotations

from typing import Any

import pytest

from metering.architecture import architecture_from_config
from metering.errors import BadInput
from metering.flops import decode_flops
from metering.lora import with_adapter
from tests.unit.metering.model_configs import LLAMA_3_1_8B

LLAMA = architecture_from_config(LLAMA_3_1_8B)


def test_each_target_module_adds_rank_times_in_plus_out() -> None:
    tuned = with_adapter(LLAMA, {"r": 16, "target_modules": ["q_proj", "model.layers.v_proj", "q_proj"]})
    assert tuned == LLAMA.with_lora(16, ("q", "v"))
    # 32 layers: q 4096 to 4096, v 4096 to 1024
    added = 2 * 32 * 16 * (4096 + 4096 + 4096 + 1024)
    assert decode_flops(tuned, 1, 1024).total - decode_flops(LLAMA, 1, 1024).total == added


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"target_modules": ["q_proj"]}, "r must be an integer"),
        ({"r": 8, "target_modules": "all-linear"}, "list of names"),
        ({"r": 8, "target_modules": []}, "list of names"),
        ({"r": 8, "target_modules": ["q_proj", "lm_head"]}, "'lm_head'"),
        ({"r": 8, "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"r": 0, "target_modules": ["q_proj"]}, "at least 1"),
    ],
)
def test_what_is_not_understood_is_named(config: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        with_adapter(LLAMA, config)
