"""Published figures that the models must give back, to the digits printed."""

from __future__ import annotations

import pytest

from metering.architecture import architecture_from_config
from metering.embodied import carbon_per_area, device_from_parts, logic
from metering.estimators import inference_flops, llmcarbon, run_seconds
from metering.flops import decode_flops
from metering.fourms import clover_objective
from metering.intensity.watttime import grams_per_kwh_from_pounds_per_mwh
from metering.mfu import model_flops_utilisation
from metering.sci import YEAR_SECONDS, embodied_share_grams
from metering.training import estimate_training
from tests.unit.metering.model_configs import LLAMA_3_1_8B


@pytest.mark.parametrize(
    ("parameters", "tokens", "chips", "watts", "peak", "efficiency", "pue", "grams", "zetta", "days", "mwh", "tonnes"),
    [
        (11e9, 600e9, 512, 310, 123e12, 0.37, 1.12, 545, 39.6, 19.67, 83.92, 45.736),
        (175e9, 300e9, 10_000, 330, 125e12, 0.197, 1.10, 429, 315, 14.805, 1289.85, 553.345),
        (7.41e9, 2000e9, 1000, 245, 123e12, 0.28, 1.10, 330, 88.92, 29.88, 193.28, 63.783),
    ],
    ids=["T5", "GPT-3", "Switch"],
)
def test_llmcarbon_training_rows(
    parameters: float, tokens: float, chips: int, watts: float, peak: float, efficiency: float, pue: float,
    grams: float, zetta: float, days: float, mwh: float, tonnes: float,
) -> None:  # fmt: skip
    """Faiz et al. 2024, validation table."""
    run = estimate_training(
        parameters, tokens, device_peak_flops=peak, efficiency=efficiency, chips=chips, average_watts=watts, pue=pue,
        intensity_grams_per_kwh=grams,
    ).as_dict()  # fmt: skip
    assert run["zettaflops"] == pytest.approx(zetta, rel=1e-12)
    assert run["days"] == pytest.approx(days, abs=0.006 if days != 14.805 else 0.0006)
    assert run["energy_mwh"] == pytest.approx(mwh, abs=0.006)
    assert run["carbon_tonnes"] == pytest.approx(tonnes, abs=0.0006)


def test_the_paper_s_error_stays_within_what_it_claims() -> None:
    published = {"T5": (46.7, 45.736), "GPT-3": (552.1, 553.345), "Switch": (59.1, 63.783)}
    assert all(abs(ours / actual - 1) <= 0.082 for actual, ours in published.values())


def test_serving_a_billion_tokens_of_gpt3_on_one_v100() -> None:
    seconds = run_seconds(inference_flops(175e9, 1e9), chips=1, peak_flops=125e12, efficiency=0.197)
    run = llmcarbon(seconds, chips=1, average_watts=330, pue=1.10, intensity_grams_per_kwh=429)
    assert seconds == pytest.approx(1.42132e7, rel=5e-6)
    assert run.facility_joules / 3.6e6 == pytest.approx(1433.16, abs=0.005)
    assert run.operational_grams / 1000 == pytest.approx(614.83, abs=0.005)


def test_palm_540b() -> None:
    palm = model_flops_utilisation(
        parameters=540e9, layers=118, heads=48, head_size=256, sequence_tokens=2048, tokens_per_second=238.3e3,
        chips=6144, peak_flops=275e12,
    )  # fmt: skip
    assert palm.mfu_ratio * 100 == pytest.approx(46.2, abs=0.1)
    assert palm.mfu_without_attention_ratio * 100 == pytest.approx(45.7, abs=0.1)


def test_llama_decode_token_and_sizes() -> None:
    llama = architecture_from_config(LLAMA_3_1_8B)
    assert decode_flops(llama, 1, 1024).total == 15_546_187_776
    assert llama.matmul_parameters == 7_504_658_432
    assert llama.parameters_total == 8_030_261_248


@pytest.mark.parametrize(
    ("node", "grams"),
    [
        (28, 1328.23), (20, 1542.40), (14, 1556.69), (10, 1777.06), (8, 1807.04), (7, 2318.23), (5, 2778.00),
        (3, 3162.57),
    ],
)  # fmt: skip
def test_act_carbon_per_area_in_taiwan(node: float, grams: float) -> None:
    assert round(carbon_per_area(node), 2) == grams


def test_act_dell_r740_processors() -> None:
    die = {"kind": "logic", "area_mm2": 698, "node_nm": 28, "fab": "coal", "gas_abatement": 95, "ics": 2, "count": 2}
    assert round(device_from_parts([die]).kilograms, 9) == 23.143405714


def test_act_fairphone_3_processor() -> None:
    die = {"kind": "logic", "area_mm2": 46.4, "node_nm": 28, "fab": "coal", "gas_abatement": 95}
    assert round(device_from_parts([die]).kilograms, 9) == 0.899293714


def test_act_die_with_its_own_yield() -> None:
    assert round(logic(145, node_nm=10, gas_abatement=95, die_yield=0.943543).grams, 4) == 2608.7022


def test_sci_hour_of_a_server() -> None:
    share = embodied_share_grams(1000, 3600, lifetime_seconds=4 * YEAR_SECONDS)
    assert round(share, 4) == 28.5388


def test_watttime_pounds_per_mwh() -> None:
    assert round(grams_per_kwh_from_pounds_per_mwh(412.5), 3) == 187.107


def test_clover_objective() -> None:
    assert round(clover_objective(1.0, 0.4, 1.0, 0.97, weight=0.1), 9) == 0.033
