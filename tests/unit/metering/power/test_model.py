"""Power models: the busy share of the cores, max(MFU, MBU), and the nameplate formula."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.power.base import Boundary, Component, Load, PowerUnavailable
from metering.power.model import (
    BusyPower,
    CoreTimes,
    CpuPowerModel,
    IdleAwarePower,
    NameplatePower,
    nameplate_grams,
    psutil_core_times,
)

GPU = Component("gpu", Boundary.ACCELERATOR)


class Cores:
    """Four cores whose busy seconds a test moves by hand."""

    def __init__(self) -> None:
        self.busy = [0.0] * 4
        self.total = 0.0

    def __call__(self) -> list[CoreTimes]:
        return [CoreTimes(busy, self.total) for busy in self.busy]

    def run(self, seconds: float, *shares: float) -> None:
        self.total += seconds
        self.busy = [busy + seconds * share for busy, share in zip(self.busy, shares, strict=True)]


def model(cores: Cores, **options: object) -> CpuPowerModel:
    fields = {"idle_watts_per_core": 1.0, "max_watts_per_core": 5.0, "memory_gb": 10.0, **options}
    return CpuPowerModel([0, 1], sampler=cores, **fields)


def test_engine_cores_are_the_accelerator_and_the_rest_with_dram_is_the_host():
    cores = Cores()
    meter = model(cores)
    meter.read(0.0)
    cores.run(2.0, 1.0, 0.5, 0.0, 0.25)
    reading = meter.read(2.0)
    assert reading.components["cpu"].nanojoules == round(2 * (5.0 + 3.0) * 1e9)
    assert reading.components["host"].nanojoules == round(2 * (1.0 + 2.0 + 3.92) * 1e9)
    assert reading.components["cpu"].idle_watts == pytest.approx(2.0)
    assert reading.components["host"].idle_watts == pytest.approx(2.0 + 3.92)


def test_the_counter_is_cumulative_and_starts_at_the_first_reading():
    cores = Cores()
    meter = model(cores)
    cores.run(100.0, 1.0, 1.0, 1.0, 1.0)
    assert meter.read(100.0).components["cpu"].nanojoules == 0
    cores.run(1.0, 0.0, 0.0, 0.0, 0.0)
    assert meter.read(101.0).components["cpu"].nanojoules == 2 * 10**9
    cores.run(1.0, 0.0, 0.0, 0.0, 0.0)
    assert meter.read(102.0).components["cpu"].nanojoules == 4 * 10**9


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(-1.0, 2.0)), max_size=20))
def test_the_counter_never_falls_and_never_exceeds_the_maximum(steps):
    cores = Cores()
    meter = model(cores)
    now, last = 0.0, meter.read(0.0).components["cpu"].nanojoules
    for seconds, share in steps:
        now += seconds
        cores.run(seconds, share, share, share, share)
        drawn = meter.read(now).components["cpu"].nanojoules
        assert last <= drawn <= last + round(10.0 * seconds * 1e9) + 1
        last = drawn


def test_unknown_watts_make_the_model_unavailable():
    with pytest.raises(PowerUnavailable, match="configure both"):
        model(Cores(), idle_watts_per_core=None)


def test_a_core_that_is_not_there_is_named():
    with pytest.raises(PowerUnavailable, match=r"\[9\] of 4"):
        CpuPowerModel([0, 9], idle_watts_per_core=1.0, max_watts_per_core=2.0, memory_gb=0.0, sampler=Cores())


def test_without_engine_cores_the_whole_cpu_is_host():
    cores = Cores()
    meter = CpuPowerModel([], idle_watts_per_core=1.0, max_watts_per_core=5.0, memory_gb=0.0, sampler=cores)
    meter.read(0.0)
    cores.run(1.0, 1.0, 0.0, 0.0, 0.0)
    assert {name: reading.nanojoules for name, reading in meter.read(1.0).components.items()} == {"host": 8 * 10**9}


def test_cores_that_change_in_number_are_a_failed_reading():
    cores = Cores()
    meter = model(cores)
    meter.read(0.0)
    cores.busy.append(0.0)
    with pytest.raises(PowerUnavailable, match="number of cores"):
        meter.read(1.0)


def test_the_operating_system_tells_busy_below_total():
    times = psutil_core_times()
    assert times
    assert all(0 <= core.busy_seconds <= core.total_seconds for core in times)


def load(mfu: float | None, mbu: float | None) -> Load:
    return Load(2.0, 1.0, mfu, mbu)


def test_idle_aware_takes_the_larger_ratio_and_at_most_the_maximal_watts():
    power = IdleAwarePower(GPU, 50.0, 350.0)
    assert power.energy_nanojoules(load(0.1, 0.5)) == 400 * 10**9
    assert power.energy_nanojoules(load(0.0, 0.0)) == 100 * 10**9
    assert power.energy_nanojoules(load(3.0, None)) == 700 * 10**9
    assert power.energy_nanojoules(load(None, None)) is None


def test_idle_aware_without_idle_watts_is_unavailable():
    with pytest.raises(PowerUnavailable, match="idle watts of gpu are unknown"):
        IdleAwarePower(GPU, None, 350.0)


def test_a_fitted_power_is_drawn_while_a_step_runs():
    power = BusyPower(GPU, 50.0, 350.0, 0.5)
    assert power.energy_nanojoules(Load(10.0, 4.0, None, None)) == (50 * 10 + 150 * 4) * 10**9
    with pytest.raises(PowerUnavailable):
        BusyPower(GPU, None, 350.0, 0.5)


def test_nameplate_is_watts_times_mfu_times_seconds_times_count():
    assert NameplatePower(GPU, 700.0, count=8).energy_nanojoules(load(0.5, 0.9)) == 5600 * 10**9
    assert NameplatePower(GPU, 700.0).energy_nanojoules(load(None, 0.9)) is None
    assert nameplate_grams(700.0, 0.5, 2.0, 8, 1.1, 400.0) == pytest.approx(5600.0 * 1.1 / 3.6e6 * 400.0)
