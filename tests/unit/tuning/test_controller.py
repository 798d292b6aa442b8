from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BadInput
from serving.tuning.controller import Controller, ControlSettings, Reason, State, Window, decide
from serving.tuning.engine_model import EngineModel, Plane
from serving.tuning.replay import replay
from serving.tuning.slo import Slo
from tests.bench.tuning.recorded import RECORDED

SLO = Slo.parse(["ttft_p95<=2s", "itl_p95<=0.05"])
SETTINGS = ControlSettings(SLO, highest_cap=128)
ENGINE = EngineModel("m", "d", (Plane(0.012, 0.001, 0.0001, 1e-7),))
STATIC_DEFAULT = 32


def window(**changes):
    values = {
        "ended_seconds": 5.0,
        "ttft_p95_seconds": 0.5,
        "itl_p95_seconds": 0.02,
        "tokens": 1000,
        "seconds": 5.0,
        "running_mean": 16.0,
        "waiting_mean": 4.0,
    }
    return Window(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "reason", "direction"),
    [
        ({}, Reason.QUEUE, 1),
        ({"waiting_mean": 0.0}, Reason.NOBODY_WAITS, 0),
        ({"itl_p95_seconds": 0.048}, Reason.NEAR_BOUND, 0),
        ({"itl_p95_seconds": 0.09}, Reason.ITL_BROKEN, -1),
        ({"ttft_p95_seconds": 5.0}, Reason.TTFT_BROKEN_BY_QUEUE, 1),
        ({"ttft_p95_seconds": 5.0, "waiting_mean": 0.0}, Reason.TTFT_BROKEN_BY_STEPS, -1),
        ({"tokens": 3, "itl_p95_seconds": 9.0}, Reason.TOO_FEW, 0),
        ({"itl_p95_seconds": None, "ttft_p95_seconds": None, "tokens": 0}, Reason.TOO_FEW, 0),
    ],
)
def test_the_cause_decides_the_move(changes, reason, direction):
    _, decision = decide(State(16, default=8), window(**changes), SETTINGS)
    assert decision.reason is reason
    assert np.sign(decision.cap - 16) == direction


def test_a_move_is_left_to_settle():
    state, first = decide(State(16), window(), SETTINGS)
    assert first.moved
    for _ in range(SETTINGS.cool_down_windows):
        state, decision = decide(state, window(itl_p95_seconds=0.2), SETTINGS)
        assert decision.reason is Reason.COOLING
    _, decision = decide(state, window(itl_p95_seconds=0.2), SETTINGS)
    assert decision.reason is Reason.ITL_BROKEN


def test_a_raise_that_gave_nothing_is_undone_and_not_tried_again_at_once():
    controller = Controller(replace(SETTINGS, cool_down_windows=0), 16)
    controller.observe(window())
    decision = controller.observe(window(running_mean=20))
    assert decision.reason is Reason.NO_GAIN
    assert controller.cap == 16
    caps = [controller.observe(window()).cap for _ in range(5)]
    assert max(caps) < 20


def test_below_the_default_nothing_is_cut_while_the_wait_has_no_room():
    both = window(itl_p95_seconds=0.09, ttft_p95_seconds=3.0)
    _, at_default = decide(State(16, default=16), both, SETTINGS)
    _, below = decide(State(12, default=16), both, SETTINGS)
    _, above = decide(State(32, default=16), replace(both, running_mean=32.0), SETTINGS)
    assert (at_default.cap, at_default.reason) == (16, Reason.BOTH_BROKEN)
    assert below.cap == 16
    assert 16 <= above.cap < 32


def test_a_cut_that_did_not_help_is_undone_and_not_repeated():
    controller = Controller(replace(SETTINGS, cool_down_windows=0), 16)
    long_prompts = window(itl_p95_seconds=0.09, ttft_p95_seconds=0.5)
    assert controller.observe(long_prompts).cap < 16
    decision = controller.observe(long_prompts)
    assert decision.reason is Reason.CUT_DID_NOT_HELP
    caps = [controller.observe(long_prompts).cap for _ in range(6)]
    assert caps == sorted(caps)


def test_a_dry_run_reports_and_changes_nothing():
    controller = Controller(replace(SETTINGS, dry_run=True), 16)
    decisions = [controller.observe(window()) for _ in range(4)]
    assert all(decision.cap == 20 and not decision.applied for decision in decisions)
    assert controller.cap == 16


def test_the_log_says_why_from_to_expected_and_seen():
    controller = Controller(replace(SETTINGS, cool_down_windows=0), 16)
    controller.observe(window(itl_p95_seconds=0.020, tokens=1000))
    decision = controller.observe(window(itl_p95_seconds=0.024, tokens=1400))
    assert (decision.previous_cap, decision.cap, decision.reason) == (20, 25, Reason.QUEUE)
    assert decision.expected_itl_p95_seconds == pytest.approx(0.029)
    assert decision.seen_itl_p95_seconds == 0.024
    assert list(controller.log)[-1] is decision


def test_above_the_threshold_the_second_bound_holds():
    carbon = replace(SETTINGS, carbon_slo=Slo.parse(["itl_p95<=0.2"]), threshold_grams_per_kwh=300.0)
    slow = {"itl_p95_seconds": 0.08}
    _, clean = decide(State(16), window(intensity_grams_per_kwh=100.0, **slow), carbon)
    _, dirty = decide(State(16), window(intensity_grams_per_kwh=500.0, **slow), carbon)
    _, unknown = decide(State(16), window(**slow), carbon)
    assert clean.cap < 16 < dirty.cap
    assert unknown.cap < 16
    assert dirty.slo == "ttft_p95<=2s, itl_p95<=0.2s"


@given(
    cap=st.integers(1, 128),
    itl=st.none() | st.floats(0, 10),
    ttft=st.none() | st.floats(0, 100),
    running=st.floats(0, 128),
    waiting=st.floats(0, 1000),
    tokens=st.integers(0, 10_000),
)
def test_every_move_is_bounded_and_within_the_range(cap, itl, ttft, running, waiting, tokens):
    seen = window(itl_p95_seconds=itl, ttft_p95_seconds=ttft, running_mean=running, waiting_mean=waiting, tokens=tokens)
    state, decision = decide(State(cap), seen, SETTINGS)
    assert 1 <= decision.cap <= 128
    assert decision.cap <= cap + max(1, cap * SETTINGS.raise_ratio)
    assert state.cap == decision.cap


@pytest.mark.parametrize(
    "changes",
    [
        {"lowest_cap": 0},
        {"highest_cap": 0},
        {"cut_ratio": 1.0},
        {"slo": Slo()},
        {"slo": Slo.parse(["e2e_p99<=1"])},
        {"slo": Slo.parse(["itl_p50<=1"])},
        {"carbon_slo": SLO},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(BadInput):
        replace(SETTINGS, **changes)


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("fast", [True, False], ids=["engine with room", "engine that is slow in a full batch"])
@pytest.mark.parametrize("default", [8, STATIC_DEFAULT, 128])
def test_the_controller_is_never_worse_than_the_static_default(name, fast, default):
    engine = ENGINE if fast else replace(ENGINE, planes=(Plane(0.012, 0.002, 0.0001, 1e-7),))
    workload = RECORDED[name]
    static = replay(workload, engine, default, SLO)
    controlled = replay(workload, engine, default, SLO, controller=Controller(SETTINGS, default))
    assert controlled.kept_ratio >= static.kept_ratio - 0.02
    assert controlled.good_requests_ratio >= static.good_requests_ratio - 0.02


def test_an_overload_is_served_faster_than_by_a_static_cap_that_is_too_small():
    workload = RECORDED["overload"]
    static = replay(workload, ENGINE, 4, SLO)
    controlled = replay(workload, ENGINE, 4, SLO, controller=Controller(SETTINGS, 4))
    assert controlled.seconds < 0.6 * static.seconds
    assert controlled.good_requests_ratio >= static.good_requests_ratio


def test_it_settles_below_the_bound_where_the_default_is_too_large():
    slow = replace(ENGINE, planes=(Plane(0.012, 0.002, 0.0001, 1e-7),))
    itl_only = replace(SETTINGS, slo=Slo.parse(["itl_p95<=0.05"]))
    controlled = replay(RECORDED["overload"], slow, 64, SLO, controller=Controller(itl_only, 64))
    late = controlled.windows[len(controlled.windows) // 3 : -5]
    assert np.mean([one.itl_p95_seconds <= 0.05 for one in late if one.itl_p95_seconds]) > 0.8


def test_a_new_slo_is_held_within_a_minute():
    tight = replace(SETTINGS, slo=Slo.parse(["itl_p95<=0.03"]))

    def change(number, controller):
        if number == 20:
            controller.reconfigure(tight)

    run = replay(RECORDED["overload"], ENGINE, 32, SLO, controller=Controller(SETTINGS, 32), at_window=change)
    assert max(run.caps[10:20]) > 20
    after = [one.itl_p95_seconds for one in run.windows[32:-5] if one.itl_p95_seconds]
    assert np.mean([value <= 0.03 for value in after]) > 0.7


def test_a_bound_that_is_not_loosened_holds_while_the_grid_is_dirty():
    carbon = replace(SETTINGS, carbon_slo=Slo.parse(["itl_p95<=0.3"]), threshold_grams_per_kwh=300.0)
    late = {"ttft_p95_seconds": 60.0, "waiting_mean": 0.0, "intensity_grams_per_kwh": 500.0}
    _, decision = decide(State(16, default=8), window(**late), carbon)
    assert decision.slo == "ttft_p95<=2s, itl_p95<=0.3s"
    assert decision.reason is Reason.TTFT_BROKEN_BY_STEPS


def test_an_intensity_about_the_threshold_does_not_turn_the_promise_with_it():
    carbon = replace(SETTINGS, carbon_slo=Slo.parse(["itl_p95<=0.2"]), threshold_grams_per_kwh=300.0)
    state, relaxed = State(16), []
    for intensity in (299, 301, 299, 290, 286, 284, 299, 301, None, 299):
        state, decision = decide(state, window(intensity_grams_per_kwh=intensity), carbon)
        relaxed.append("0.2s" in decision.slo)
    assert relaxed == [False, True, True, True, True, False, False, True, False, False]


def test_carbon_lowers_the_energy_of_a_token_while_the_grid_is_dirty():
    carbon = replace(SETTINGS, carbon_slo=Slo.parse(["itl_p95<=0.15"]), threshold_grams_per_kwh=300.0)
    overload = RECORDED["overload"]
    plain = replay(overload, ENGINE, 32, SLO, controller=Controller(SETTINGS, 32), intensity=lambda s: 600.0)
    relaxed = replay(overload, ENGINE, 32, SLO, controller=Controller(carbon, 32), intensity=lambda s: 600.0)
    assert relaxed.busy_seconds / relaxed.tokens < 0.95 * plain.busy_seconds / plain.tokens
