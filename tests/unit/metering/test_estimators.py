"""Named estimators, SCI, utilisation and the four factors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BadInput
from metering.estimators import idle_aware, llmcarbon, nameplate, run_seconds, training_flops
from metering.fourms import Footing, clover_objective, factor
from metering.mfu import Utilisation, model_flops_utilisation, roofline_seconds, utilisation
from metering.sci import embodied_share_grams, sci_score

TERMS: dict[str, Any] = {"chips": 2, "pue": 1.5, "intensity_grams_per_kwh": 400.0}


def test_each_estimator_names_itself_and_applies_pue_and_intensity() -> None:
    run = llmcarbon(3600, average_watts=500, **TERMS)
    assert (run.estimator, run.energy_joules, run.overhead_joules) == ("llmcarbon", 3.6e6, 1.8e6)
    assert run.operational_grams == pytest.approx(1.5 * 400)


def test_nameplate_scales_power_by_mfu() -> None:
    assert nameplate(10, max_watts=400, mfu_ratio=0.25, **TERMS).energy_joules == 400 * 0.25 * 2 * 10


def test_idle_aware_runs_between_idle_and_maximal_watts() -> None:
    def joules(utilisation_ratio: float) -> float:
        return idle_aware(10, idle_watts=50, max_watts=450, utilisation_ratio=utilisation_ratio, **TERMS).energy_joules

    assert (joules(0), joules(0.5), joules(1)) == (1000, 5000, 9000)


@given(st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 500), st.floats(0, 500))
def test_idle_aware_is_never_below_nameplate(seconds: float, used: float, idle: float, more: float) -> None:
    aware = idle_aware(seconds, idle_watts=idle, max_watts=idle + more, utilisation_ratio=used, **TERMS)
    plate = nameplate(seconds, max_watts=idle + more, mfu_ratio=used, **TERMS)
    assert aware.energy_joules >= plate.energy_joules * (1 - 1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pue": 0.9}, "PUE"), ({"chips": 0}, "chips"), ({"intensity_grams_per_kwh": -1}, "intensity"),
        ({"average_watts": -1}, "watts"), ({"pue": float("nan")}, "PUE"),
    ],
)  # fmt: skip
def test_estimator_refuses_terms_out_of_range(change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        llmcarbon(1.0, **{"average_watts": 1.0, **TERMS, **change})


def test_idle_above_maximal_is_refused() -> None:
    with pytest.raises(BadInput, match="exceed"):
        idle_aware(1.0, idle_watts=2, max_watts=1, utilisation_ratio=0, **TERMS)


@pytest.mark.parametrize("efficiency", [0.0, 1.1, -0.2])
def test_efficiency_is_a_ratio(efficiency: float) -> None:
    with pytest.raises(BadInput, match="efficiency"):
        run_seconds(1.0, chips=1, peak_flops=1.0, efficiency=efficiency)


def test_training_refuses_negative_tokens() -> None:
    with pytest.raises(BadInput, match="tokens"):
        training_flops(1e9, -1)


# utilisation


def test_rejected_tokens_raise_hfu_not_mfu() -> None:
    used = utilisation(1.0, useful_flops=2e12, executed_flops=5e12, peak_flops=10e12)
    assert (used.mfu_ratio, used.hfu_ratio, used.mbu_ratio) == (0.2, 0.5, None)


def test_decode_shows_in_mbu() -> None:
    used = utilisation(1.0, useful_flops=1e10, bytes_moved=8e11, peak_flops=1e13, bandwidth_bytes_per_second=1e12)
    assert used.mbu_ratio == 0.8
    assert used.busiest == 0.8


def test_unknown_peak_gives_no_mfu() -> None:
    assert utilisation(1.0, useful_flops=1e10).mfu_ratio is None
    assert utilisation(1.0, useful_flops=1e10).busiest is None


def test_above_one_is_reported_not_clamped() -> None:
    used = utilisation(1.0, useful_flops=2e12, peak_flops=1e12)
    assert used.mfu_ratio == 2.0
    assert used.implausible == ("mfu", "hfu")
    assert Utilisation(0.5, 0.5, None).implausible == ()


@pytest.mark.parametrize(
    "arguments",
    [
        {"seconds": 0.0, "useful_flops": 1.0},
        {"seconds": 1.0, "useful_flops": -1.0},
        {"seconds": 1.0, "useful_flops": 2.0, "executed_flops": 1.0},
        {"seconds": 1.0, "useful_flops": 1.0, "peak_flops": 0.0},
    ],
)
def test_utilisation_refuses_the_impossible(arguments: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        utilisation(arguments.pop("seconds"), **arguments)  # type: ignore[arg-type]


def test_roofline_takes_the_slower_side() -> None:
    rates: dict[str, float | None] = {"peak_flops": 1e12, "bandwidth_bytes_per_second": 1e11}
    assert roofline_seconds(1e12, 1e10, **rates) == 1.0
    assert roofline_seconds(1e11, 1e11, **rates) == 1.0
    assert roofline_seconds(1.0, 1.0, peak_flops=None, bandwidth_bytes_per_second=None) is None


def test_inference_counts_one_forward() -> None:
    shape: dict[str, Any] = {
        "parameters": 1e9, "layers": 10, "heads": 8, "head_size": 64, "sequence_tokens": 100,
        "tokens_per_second": 1000.0, "chips": 1, "peak_flops": 1e14,
    }  # fmt: skip
    trained, served = (model_flops_utilisation(**shape, phase=phase) for phase in ("training", "inference"))
    assert served.flops_per_token == 2e9 + 4 * 10 * 8 * 64 * 100
    assert trained.flops_per_token == 3 * served.flops_per_token
    with pytest.raises(BadInput, match="chips"):
        model_flops_utilisation(**{**shape, "chips": 0})


# SCI


def test_sci_share_is_by_time_and_by_resources() -> None:
    assert embodied_share_grams(100, 50, lifetime_seconds=100, resource_share=0.5) == 25_000
    assert sci_score(1.0, 400.0, 100.0, 1000) == 0.5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((-1, 1, 1, 1), "mass"), ((1, -1, 1, 1), "time"), ((1, 1, 0, 1), "lifetime"), ((1, 1, 1, 1.5), "share"),
    ],
)  # fmt: skip
def test_sci_share_refuses(arguments: tuple[float, float, float, float], says: str) -> None:
    mass, seconds, lifetime, share = arguments
    with pytest.raises(BadInput, match=says):
        embodied_share_grams(mass, seconds, lifetime_seconds=lifetime, resource_share=share)


def test_sci_needs_a_functional_unit() -> None:
    with pytest.raises(BadInput, match="functional units"):
        sci_score(1.0, 1.0, 1.0, 0)
    with pytest.raises(BadInput, match="at least 0"):
        sci_score(-1.0, 1.0, 1.0, 1)


# 4Ms

positive = st.floats(1e-3, 1e3)
footings = st.builds(Footing, positive, positive, positive, positive)


@given(footings, footings)
def test_the_four_factors_multiply_to_the_total(before: Footing, after: Footing) -> None:
    assert factor(before, after).total == pytest.approx(before.grams / after.grams, rel=1e-9)


def test_a_saving_needs_both_sides() -> None:
    with pytest.raises(BadInput, match="the run after"):
        factor(Footing(1, 1, 1, 1), Footing(1, 0, 1, 1))


def test_clover_needs_a_baseline() -> None:
    with pytest.raises(BadInput, match="baseline"):
        clover_objective(0, 1, 1, 1)
    with pytest.raises(BadInput, match="weight"):
        clover_objective(1, 1, 1, 1, weight=2)
