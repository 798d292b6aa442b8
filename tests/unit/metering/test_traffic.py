"""Bytes moved: weights once a pass, keys and values by context and window."""

from __future__ import annotations

import pytest

from metering.architecture import architecture_from_config
from metering.errors import BadInput
from metering.traffic import decode_bytes, prefill_bytes, weight_read_bytes
from tests.unit.metering.model_configs import GEMMA2_2B, LLAMA_3_1_8B, MIXTRAL_8X7B

LLAMA = architecture_from_config(LLAMA_3_1_8B)
EACH = {"weight_bytes_each": 2.0, "kv_bytes_each": 2.0}


def test_decode_reads_the_weights_once_a_step_and_the_cache_at_each_context() -> None:
    moved = decode_bytes(LLAMA, 3, 100, **EACH)
    assert moved.weights == 2 * 7_504_658_432
    assert moved.kv_read == (100 + 101 + 102) * 131072
    assert moved.kv_write == 3 * 131072
    assert moved.total(passes=3) == 3 * moved.weights + moved.kv_read + moved.kv_write


def test_a_batch_shares_the_weight_read() -> None:
    moved = decode_bytes(LLAMA, 8, 1, **EACH)
    assert moved.total(passes=8 / 4) == 2 * moved.weights + moved.kv_read + moved.kv_write


def test_prefill_reads_the_whole_context_once_and_writes_what_it_computes() -> None:
    moved = prefill_bytes(LLAMA, 60, 40, **EACH)
    assert (moved.kv_read, moved.kv_write) == (100 * 131072, 60 * 131072)


def test_window_clamps_the_cache_read() -> None:
    gemma = architecture_from_config(GEMMA2_2B)
    per_position = 13 * 2 * 4 * 256 * 2
    assert decode_bytes(gemma, 1, 5000, **EACH).kv_read == per_position * (5000 + 4096)


def test_more_tokens_in_a_pass_touch_more_experts() -> None:
    mixtral = architecture_from_config(MIXTRAL_8X7B)
    one, two, many = (weight_read_bytes(mixtral, count, weight_bytes_each=1.0) for count in (1, 2, 64))
    assert one == mixtral.matmul_parameters_active
    assert two - one == 32 * 2 * 3 * 4096 * 14336
    assert many == mixtral.matmul_parameters


def test_no_tokens_move_nothing() -> None:
    assert prefill_bytes(LLAMA, 0, 10, **EACH).total() == 0
    assert decode_bytes(LLAMA, 0, 0, **EACH).total() == 0


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_widths_must_be_positive(width: float) -> None:
    with pytest.raises(BadInput, match="must be positive"):
        decode_bytes(LLAMA, 1, 1, weight_bytes_each=width, kv_bytes_each=2.0)
    with pytest.raises(BadInput, match="must be positive"):
        decode_bytes(LLAMA, 1, 1, weight_bytes_each=2.0, kv_bytes_each=width)
