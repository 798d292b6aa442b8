"""The profile of a served model turns records into FLOPs and bytes with the library's own formulas."""

from __future__ import annotations

import pytest

from metering.architecture import architecture_from_config
from metering.errors import BadInput
from metering.flops import decode_bytes, decode_flops, prefill_bytes, prefill_flops
from metering.model_profile import ModelProfile
from metering.weights import WeightKind, usable_kind

SMALL = architecture_from_config(
    {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 256,
        "dtype": "bfloat16",
    }
)


def test_work_is_that_of_the_closed_forms(world):
    profile = ModelProfile("m", SMALL, weight_bytes_each=2.0, kv_bytes_each=2.0)
    work = profile.work(world.record("r", 0.0, 1.0, prefill_tokens=7, cached_tokens=5, first_context_tokens=13))
    widths = {"weight_bytes_each": 2.0, "kv_bytes_each": 2.0}
    prefill, decode = prefill_bytes(SMALL, 7, 5, **widths), decode_bytes(SMALL, 10, 13, **widths)
    assert work.flops_prefill == prefill_flops(SMALL, 7, 5).total
    assert work.flops_decode == decode_flops(SMALL, 10, 13).total
    assert work.kv_bytes_prefill == prefill.kv_read + prefill.kv_write
    assert work.kv_bytes_decode == decode.kv_read + decode.kv_write
    assert work.weight_bytes_prefill == prefill.weights
    assert profile.step_weight_bytes(1.0) == decode.weights


def test_unknown_widths_leave_flops_and_no_roofline(world):
    profile = ModelProfile("m", SMALL, peak_flops=1e9, bandwidth_bytes_per_second=1e9)
    work = profile.work(world.record("r", 0.0, 1.0))
    assert profile.step_weight_bytes(4.0) is None
    assert usable_kind(WeightKind.ROOFLINE_TIME, profile, work) is WeightKind.FLOPS


def test_an_unknown_architecture_has_no_work(world):
    assert ModelProfile("m").work(world.record("r", 0.0, 1.0)) is None


def test_a_decode_without_context_is_refused(world):
    with pytest.raises(BadInput, match="context"):
        ModelProfile("m", SMALL).work(world.record("r", 0.0, 1.0, first_context_tokens=0))


def test_a_profile_travels_between_processes(world):
    import pickle

    profile = ModelProfile("m", SMALL, 2.0, 2.0, 1e12, 1e11)
    profile.step_weight_bytes(2.0)
    assert pickle.loads(pickle.dumps(profile)) == profile
