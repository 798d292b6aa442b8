"""Weights of executed work, and how sequences share a forward pass."""

from __future__ import annotations

import pytest

from metering.weights import (
    WeightKind,
    common_kind,
    mean_batch_of_intervals,
    mean_batch_of_steps,
    roofline_seconds,
    usable_kind,
)
from metering.work import EngineSteps


def test_decode_is_bound_by_bytes_and_prefill_by_flops(world):
    model = world.model()
    decode = world.record("r", 0.0, 1.0)
    prefill = world.record("r", 0.0, 1.0, prefill_tokens=1000, decode_tokens=0)
    assert roofline_seconds(decode, model.work(decode), model, 1.0) == pytest.approx((100 + 10 * 5000) / 1e5)
    assert roofline_seconds(prefill, model.work(prefill), model, 1.0) == pytest.approx(1000 * 1000 / 1e6)


def test_sequences_of_a_step_share_its_weight_read(world):
    model = world.model()
    decode = world.record("r", 0.0, 1.0)
    assert roofline_seconds(decode, model.work(decode), model, 4.0) == pytest.approx((100 + 10 * 5000 / 4) / 1e5)


def test_roofline_needs_a_peak(world):
    model = world.model(peak_flops=None)
    decode = world.record("r", 0.0, 1.0)
    with pytest.raises(ValueError, match="roofline time of m needs peak"):
        roofline_seconds(decode, model.work(decode), model, 1.0)


@pytest.mark.parametrize("unknown", ["peak_flops", "bandwidth_bytes_per_second", "weights"])
def test_an_unknown_of_the_roofline_falls_back_to_flops(world, unknown):
    model = world.model(**{unknown: None})
    assert usable_kind(WeightKind.ROOFLINE_TIME, model, model.work(world.record("r", 0, 1))) is WeightKind.FLOPS


def test_a_window_is_weighed_in_the_lowest_unit_of_its_work():
    kinds = [WeightKind.ROOFLINE_TIME, WeightKind.TOKENS, WeightKind.FLOPS]
    assert common_kind(kinds, WeightKind.ROOFLINE_TIME) is WeightKind.TOKENS
    assert common_kind([], WeightKind.FLOPS) is WeightKind.FLOPS


def test_mean_batch_takes_steps_by_overlap_and_is_at_least_one():
    steps = [EngineSteps("m", 0.0, 2.0, 10, 40), EngineSteps("m", 2.0, 3.0, 10, 100)]
    assert mean_batch_of_steps(steps, 1.0, 3.0) == pytest.approx((20 + 100) / 15)
    assert mean_batch_of_steps(steps, 5.0, 6.0) is None
    assert mean_batch_of_steps([EngineSteps("m", 0.0, 1.0, 4, 2)], 0.0, 1.0) == 1.0


def test_mean_batch_is_estimated_from_overlapping_records():
    assert mean_batch_of_intervals([(0.0, 2.0), (0.0, 1.0), (1.0, 2.0), (9.0, 9.0)]) == pytest.approx(2.0)
    assert mean_batch_of_intervals([]) == 1.0
