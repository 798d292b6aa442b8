import pytest

from serving.tuning.carbon import Carbon
from serving.tuning.goal import Goal
from serving.tuning.setting import Setting
from serving.tuning.slo import Slo


def run(joules, grid, embodied=0.0, tokens=1000):
    """Figures of a run under a grid of so many g/kWh."""
    grams = joules / 3.6e6 * grid
    return {
        "output_tokens": tokens,
        "joules_per_output_token": joules / tokens,
        "operational_grams": grams,
        "embodied_grams": embodied,
        "grams_per_1k_output_tokens": 1000 * grams / tokens,
    }


def test_two_runs_are_compared_at_one_grid_and_not_at_that_of_their_hour():
    thrifty, lucky = run(3.6e5, 500.0), run(7.2e5, 100.0)
    goal = Goal("grams", Slo()).counting_as([thrifty])
    values = [goal.value(goal.rated(figures, Setting(1))) for figures in (thrifty, lucky)]
    assert values == pytest.approx([50.0, 100.0])
    assert goal.rated(lucky, Setting(1))["operational_grams_per_1k_output_tokens"] == pytest.approx(20.0)


def test_embodied_grams_are_counted_where_the_first_run_told_them_and_it_says_so():
    with_them, without = run(3.6e5, 500.0, embodied=7.0), run(3.6e5, 500.0, embodied=None)
    counted = Carbon.of(with_them).counted(with_them)
    assert counted["grams_per_1k_output_tokens"] == pytest.approx(57.0)
    assert Carbon.of(with_them).counted(counted) == pytest.approx(counted)
    # a sum of unlike things is no figure
    assert Carbon.of(with_them).counted(without)["grams_per_1k_output_tokens"] is None
    assert Carbon.of(without).counted(with_them)["grams_per_1k_output_tokens"] == pytest.approx(50.0)
    assert str(Carbon.of(with_them)) == "grams are operational and embodied, at 500 g/kWh"
    assert str(Carbon.of(without)) == "grams are operational (embodied are unknown), at 500 g/kWh"


def test_a_clean_grid_and_an_unknown_power_are_no_faults():
    assert Carbon.of(run(3.6e5, 0.0, embodied=2.0)).counted(run(9.9e5, 0.0, 2.0))["grams_per_1k_output_tokens"] == 2.0
    unmetered = {**run(1.0, 1.0), "joules_per_output_token": None}
    assert Carbon.of(unmetered).grams_per_kwh is None
    assert Carbon.of(unmetered).counted({"output_tokens": 5, "operational_grams": None}) == {
        "output_tokens": 5,
        "operational_grams": None,
    }
