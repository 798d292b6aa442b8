"""The planner: the contract's conventions, the roofline, and what stands when a figure is unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.architecture import architecture_from_config
from metering.errors import BadInput
from metering.flops import decode_flops, prefill_flops
from metering.hardware import Device, find_device
from metering.hardware.device import Figure
from metering.intensity import StaticIntensity
from metering.planner import DeviceFigures, InferenceEstimate, estimate_inference
from metering.site import Prices, Site
from metering.training import estimate_training
from tests.unit.metering.model_configs import LLAMA_3_1_8B, MIXTRAL_8X7B, SMOLLM2_135M

LLAMA = architecture_from_config(LLAMA_3_1_8B)
SITE = Site(StaticIntensity("here", grams_per_kwh=360.0).reading)
DEVICE = Device(
    "round", "gpu", {"bf16": Figure(1e14, "s")}, Figure(1e12, "s"), Figure(80e9, "s"), Figure(100, "s"),
    Figure(500, "s"), embodied_kilograms=Figure(146, "s"), embodied_scope="board",
)  # fmt: skip


def plan(prompt: int = 1000, output: int = 100, **options: Any) -> InferenceEstimate:
    return estimate_inference(LLAMA, prompt, output, **options)


def on_device(prompt: int = 1000, output: int = 100, **options: Any) -> DeviceFigures:
    figures = plan(prompt, output, **{"device": DEVICE, "site": SITE, **options}).on_device
    assert figures is not None
    return figures


def test_m_output_tokens_are_the_prefill_and_m_minus_one_steps() -> None:
    estimate = plan(10, 3)
    assert estimate.prefill == prefill_flops(LLAMA, 10)
    assert estimate.decode.total == decode_flops(LLAMA, 1, 11).total + decode_flops(LLAMA, 1, 12).total
    assert plan(10, 1).decode.total == 0
    assert plan(10, 0).decode.total == 0


def test_cached_tokens_save_all_but_their_share_of_attention() -> None:
    estimate = plan(100, 1, cached_tokens=99)
    assert estimate.prefill.attention == decode_flops(LLAMA, 1, 100).attention
    assert estimate.prefill.head == 2 * 4096 * 128256
    assert estimate.prefill.qkv == decode_flops(LLAMA, 1, 100).qkv


def test_full_attention_is_vllm_s_count() -> None:
    estimate = plan(100, 1, cached_tokens=40, attention="full")
    assert estimate.prefill.attention == 4 * 32 * 32 * 128 * 60 * 100
    assert estimate.as_dict()["attention"] == "full"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"prompt": 0}, "prompt tokens must be at least 1, got 0"),
        ({"prompt": -5}, "prompt tokens must be at least 1, got -5"),
        ({"output": -1}, "output tokens must be at least 0, got -1"),
        ({"cached_tokens": -1}, "cached tokens must be at least 0"),
        ({"prompt": 10, "cached_tokens": 10}, "cached tokens must be at most 9"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"count": 0}, "device count must be at least 1"),
        ({"efficiency": 1.5}, "efficiency must be a ratio"),
        ({"device": DEVICE}, "needs a site"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        plan(**arguments)


def test_without_a_device_only_flops_and_sizes_are_told() -> None:
    told = plan().as_dict()
    assert set(told) == {
        "flops_prefill", "flops_decode", "flops_total", "parameters_total", "parameters_active", "kv_bytes_per_token",
        "attention", "flops_by_part", "notes",
    }  # fmt: skip
    assert told["flops_total"] == told["flops_prefill"] + told["flops_decode"]


def test_prefill_is_bound_by_compute_and_decode_by_bandwidth() -> None:
    figures = on_device()
    assert dict(figures.bound_by) == {"prefill": "compute", "decode": "bandwidth"}
    assert figures.prefill_seconds == pytest.approx(plan().prefill.total / 1e14)
    weights = 2 * 7_504_658_432
    cache = sum(range(1001, 1100)) * 131072 + 99 * 131072
    assert figures.decode_seconds == pytest.approx((99 * weights + cache) / 1e12)
    assert figures.time_seconds == pytest.approx((figures.prefill_seconds or 0) + (figures.decode_seconds or 0))


def test_on_the_roofline_the_device_draws_its_maximal_watts() -> None:
    figures = on_device()
    assert figures.time_seconds is not None
    assert figures.energy_joules == pytest.approx(500 * figures.time_seconds)
    assert figures.operational_grams == pytest.approx((figures.energy_joules or 0) / 3.6e6 * 360)
    assert figures.embodied_grams == pytest.approx(146_000 * figures.time_seconds / (4 * 365 * 86400))
    assert figures.estimator == "idle_aware"


def test_below_the_roofline_it_takes_longer_at_less_power() -> None:
    full, half = on_device(), on_device(efficiency=0.5)
    assert half.time_seconds == pytest.approx(2 * (full.time_seconds or 0))
    assert half.energy_joules == pytest.approx((100 + 400 * 0.5) * (half.time_seconds or 0))


def test_pue_is_in_the_grams_not_in_the_joules() -> None:
    plain, loaded = on_device(), on_device(site=Site(SITE.intensity, pue=1.5))
    assert loaded.energy_joules == plain.energy_joules
    assert loaded.operational_grams == pytest.approx(1.5 * (plain.operational_grams or 0))


def test_a_batch_shares_the_weight_read() -> None:
    alone, batched = on_device(), on_device(batch=8)
    assert (batched.energy_joules or 0) < (alone.energy_joules or 0) / 3
    assert (batched.time_seconds or 0) > (alone.time_seconds or 0)


def test_more_devices_are_faster_at_the_same_energy() -> None:
    one, four = on_device(), on_device(count=4)
    assert (four.time_seconds or 0) * 4 == pytest.approx(one.time_seconds)
    assert four.energy_joules == pytest.approx(one.energy_joules)
    assert four.embodied_grams == pytest.approx(one.embodied_grams)


@given(st.integers(1, 4000), st.integers(0, 400), st.integers(1, 32))
def test_energy_of_a_request_never_grows_with_the_batch(prompt: int, output: int, batch: int) -> None:
    alone, batched = on_device(prompt, output), on_device(prompt, output, batch=batch)
    assert (batched.energy_joules or 0) <= (alone.energy_joules or 0) * (1 + 1e-9)


@given(st.integers(1, 3000), st.data())
def test_a_cached_prefix_never_costs_more(prompt: int, data: st.DataObject) -> None:
    cached = data.draw(st.integers(0, prompt - 1))
    warm, cold = on_device(prompt, 1, cached_tokens=cached), on_device(prompt, 1)
    assert (warm.prefill_seconds or 0) <= (cold.prefill_seconds or 0) * (1 + 1e-9)


def test_prices_put_cost_beside_grams() -> None:
    figures = on_device(site=Site(SITE.intensity, pue=1.2, prices=Prices(per_device_hour=3.6, per_kwh=0.36)), count=2)
    assert figures.cost is not None
    assert figures.cost["devices"] == pytest.approx((figures.time_seconds or 0) * 2 * 0.001)
    assert figures.cost["electricity"] == pytest.approx((figures.energy_joules or 0) * 1.2 * 1e-7)
    assert figures.cost["total"] == pytest.approx(figures.cost["devices"] + figures.cost["electricity"])
    assert on_device().cost is None


# unknown figures


def unknowing(**figures: Any) -> InferenceEstimate:
    fields = {
        "peak_flops": {"bf16": Figure(1e14, "s")}, "bandwidth_bytes_per_second": Figure(1e12, "s"),
        "max_watts": Figure(500, "s"), "idle_watts": Figure(100, "s"), "embodied_kilograms": Figure(146, "s"),
    }  # fmt: skip
    return plan(device=Device("blank", "gpu", **{**fields, **figures}), site=SITE, efficiency=0.5)  # type: ignore[arg-type]


def test_unknown_peak_gives_no_time_and_no_energy() -> None:
    estimate = unknowing(peak_flops={})
    told = estimate.as_dict()
    keys = ("time_seconds", "energy_joules", "operational_grams", "embodied_grams", "mfu_ratio")
    assert [told[key] for key in keys] == [None] * 5
    assert any("peak of blank at bfloat16 is unknown" in note for note in told["notes"])


def test_unknown_bandwidth_gives_no_decode_and_nothing_of_the_whole() -> None:
    told = unknowing(bandwidth_bytes_per_second=None).as_dict()
    keys = ("decode_seconds", "time_seconds", "energy_joules", "operational_grams", "embodied_grams", "mfu_ratio")
    assert [told[key] for key in keys] == [None] * 6
    assert told["prefill_seconds"] == pytest.approx(plan().prefill.total / 1e14 / 0.5)
    assert told["bound_by"] == {"prefill": "compute"}
    assert any("bandwidth of blank is unknown" in note for note in told["notes"])


def test_unknown_power_gives_no_energy() -> None:
    told = unknowing(max_watts=None, idle_watts=None).as_dict()
    assert (told["energy_joules"], told["operational_grams"], told["estimator"]) == (None, None, None)
    assert told["time_seconds"] > 0


def test_unknown_idle_power_is_an_upper_bound_under_its_own_name() -> None:
    told = unknowing(idle_watts=None).as_dict()
    assert told["estimator"] == "maximal_watts"
    assert told["energy_joules"] == pytest.approx(500 * told["time_seconds"])


def test_unknown_mass_gives_no_embodied_grams() -> None:
    assert unknowing(embodied_kilograms=None).as_dict()["embodied_grams"] is None


def test_a_model_too_large_for_the_memory_is_noted() -> None:
    mixtral = architecture_from_config(MIXTRAL_8X7B)
    notes = estimate_inference(mixtral, 10, 10, device=find_device("L4"), site=SITE).notes
    assert any("need 93.4 GB, the devices have 24.0" in note for note in notes)


def test_a_prompt_beyond_the_context_is_noted() -> None:
    assert any("exceed the model's context of 131072" in note for note in plan(131_072, 2).notes)


def test_a_mixture_reads_more_experts_as_the_batch_grows() -> None:
    mixtral = architecture_from_config(MIXTRAL_8X7B)
    times = [
        estimate_inference(mixtral, 1, 2, device=find_device("B200"), site=SITE, batch=batch).on_device
        for batch in (1, 4, 8)
    ]
    one, four, eight = ((figures.decode_seconds or 0) if figures else 0 for figures in times)
    assert one < four
    assert eight < 1.01 * four


def test_site_refuses_a_pue_below_one() -> None:
    with pytest.raises(BadInput, match="PUE"):
        Site(SITE.intensity, pue=0.5)
    with pytest.raises(BadInput, match="lifetime"):
        Site(SITE.intensity, lifetime_years=0)


def test_training_writes_off_the_chips_and_counts_their_cost() -> None:
    run = estimate_training(
        1e9, 1e9, device_peak_flops=1e12, efficiency=1.0, chips=2, average_watts=100, pue=1.0,
        intensity_grams_per_kwh=100, embodied_kilograms=146, prices=Prices(per_device_hour=1.0),
    )  # fmt: skip
    assert run.seconds == 3e6
    assert run.embodied_grams == pytest.approx(2 * 146_000 * 3e6 / (4 * 365 * 86400))
    assert run.cost == {"devices": pytest.approx(2 * 3e6 / 3600), "total": pytest.approx(2 * 3e6 / 3600)}
    assert set(run.as_dict()) >= {"zettaflops", "days", "energy_mwh", "carbon_tonnes", "embodied_tonnes", "cost"}


def test_small_model_on_a_laptop_sized_figure() -> None:
    smol = architecture_from_config(SMOLLM2_135M)
    estimate = estimate_inference(smol, 512, 64, device=find_device("T4"), precision="fp16", site=SITE)
    assert estimate.on_device is not None
    assert 0.01 < (estimate.on_device.time_seconds or 0) < 0.1


def test_energy_by_the_other_named_estimators() -> None:
    aware = on_device()
    assert aware.time_seconds is not None
    assert aware.mfu_ratio is not None
    nameplate = on_device(estimator="nameplate")
    assert nameplate.estimator == "nameplate"
    assert nameplate.energy_joules == pytest.approx(500 * aware.mfu_ratio * aware.time_seconds)
    assert nameplate.operational_grams == pytest.approx((nameplate.energy_joules or 0.0) / 3.6e6 * 360)
    paper = on_device(estimator="llmcarbon", average_watts=330.0, count=2)
    assert paper.estimator == "llmcarbon"
    assert paper.energy_joules == pytest.approx(330 * 2 * (paper.time_seconds or 0.0))
    assert paper.time_seconds == on_device(count=2).time_seconds


def test_llmcarbon_without_average_watts_says_what_stands_for_them() -> None:
    estimate = plan(device=DEVICE, site=SITE, estimator="llmcarbon")
    assert any("stand for the average" in note for note in estimate.notes)
    assert estimate.on_device is not None
    assert estimate.on_device.energy_joules == pytest.approx(500 * (estimate.on_device.time_seconds or 0.0))


def test_average_watts_for_another_estimator_are_refused() -> None:
    with pytest.raises(BadInput, match="idle_aware takes the device's maximal watts"):
        plan(device=DEVICE, site=SITE, average_watts=330.0)
    with pytest.raises(BadInput, match="average watts"):
        plan(device=DEVICE, site=SITE, estimator="llmcarbon", average_watts=-1.0)
