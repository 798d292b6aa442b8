"""The best meter that can be had is taken, and the reasons against better ones are kept."""

from __future__ import annotations

import pytest

from metering.power.base import Boundary, Component, PowerUnavailable
from metering.power.choose import Candidate, choose_meter
from metering.power.model import IdleAwarePower
from metering.power.scripted import ConstantMeter

GPU, HOST = Component("gpu", Boundary.ACCELERATOR), Component("host", Boundary.HOST)


def unavailable(reason: str) -> Candidate:
    def build():
        raise PowerUnavailable(reason)

    return Candidate("nvml", build)


def test_the_first_that_is_available_is_chosen_for_each_part():
    plan = choose_meter(
        {
            "gpu": [unavailable("no driver"), Candidate("idle_aware", lambda: IdleAwarePower(GPU, 46.0, 407.0))],
            "host": [Candidate("rapl", lambda: ConstantMeter({HOST: 5.0})), unavailable("never asked")],
        }
    )
    assert plan.chosen == {"gpu": "idle_aware", "host": "rapl"}
    assert (len(plan.meters), len(plan.load_models), plan.uncovered) == (1, 1, ())
    assert plan.explanation == (
        "power of gpu: idle_aware",
        "power of host: rapl",
        "power of gpu not by nvml: no driver",
    )


def test_a_part_that_nothing_covers_is_unknown():
    plan = choose_meter({"gpu": [unavailable("no driver")]})
    assert plan.uncovered == ("gpu",)
    assert "power of gpu: unknown" in plan.explanation


def test_a_defect_is_not_taken_for_unavailability():
    def build():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        choose_meter({"gpu": [Candidate("broken", build)]})
