"""A meter that was killed: the next one goes on with its counters, and books the energy between them as nobody's."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from metering.books import ClosedWindow
from metering.node import NodeMeter
from metering.node_settings import NodeSettings
from metering.power.base import Boundary, Component
from metering.power.model import CoreTimes, CpuPowerModel, IdleAwarePower
from metering.power.nvml import NvmlMeter
from metering.power.rapl import RaplMeter
from metering.power.scripted import ScriptedMeter
from metering.sampling import Kept
from metering.work import WorkBatch, WorkRecord
from tests.unit.metering.power.test_nvml import FakeGpu, FakeNvml
from tests.unit.metering.power.test_trace import Package

GPU = Component("gpu", Boundary.ACCELERATOR)


class Machine:
    """One GPU and one package whose counters go on whoever reads them."""

    def __init__(self, powercap) -> None:
        self.gpu, self.package = FakeGpu("GPU-1"), Package(powercap)
        self.now = 0.0
        self.told: Counter[str] = Counter()

    def meter(self, kept: Kept | None = None) -> NodeMeter:
        meters = [NvmlMeter(FakeNvml(self.gpu)), RaplMeter(0, 4, root=self.package.zone.parent)]
        node = NodeMeter(meters, NodeSettings(), on_demand=("GPU-1",), clock=lambda: self.now, wall_clock=lambda: 1.7e9)
        if kept is not None:
            node.resume(pickle.loads(pickle.dumps(kept)))
        node.start()
        return node

    def draw(self, millijoules: int, microjoules: int) -> None:
        self.now += 1.0
        self.gpu.millijoules += millijoules
        self.package.set(microjoules)

    def take(self, closed: Iterable[ClosedWindow]) -> None:
        for window in closed:
            for close in window.components:
                self.told[close.component.name] += (close.energy_nanojoules or 0) + close.recovered_nanojoules


seconds = st.lists(
    st.tuples(
        st.sampled_from(["runs", "runs", "the replica is behind", "killed"]),
        st.integers(0, 700_000),
        st.integers(0, 200_000_000),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(day=seconds)
def test_whenever_it_is_killed_all_that_the_counters_showed_is_told_once(tmp_path_factory, day):
    machine = Machine(tmp_path_factory.mktemp("powercap"))
    node = machine.meter()
    node.attach("a", ["GPU-1"])
    kept, drawn, sequence = node.kept(), Counter(), 0
    for what, millijoules, microjoules in day:
        machine.draw(millijoules, microjoules)
        drawn += Counter({"GPU-1": millijoules * 10**6, "host": microjoules * 1000})
        if what == "killed":
            node = machine.meter(kept)
            continue
        if what == "runs":
            sequence += 1
            record = WorkRecord(f"r{sequence}", "m", "t", machine.now - 0.8, machine.now - 0.1, decode_tokens=9)
            node.submit(WorkBatch("a", sequence, machine.now, (record,), (), (record.request_id,)))
        if closed := node.tick():
            machine.take(closed)
            kept = node.kept()
        assert node.books().balanced
    machine.draw(0, 0)
    machine.take(node.drain())
    assert machine.told == drawn
    assert node.books().counters.lost_batches == 0


def test_what_was_drawn_in_between_is_nobody_s(tmp_path):
    machine = Machine(tmp_path)
    first = machine.meter()
    first.attach("a", ["GPU-1"])
    kept = first.kept()
    machine.draw(5_000, 3_000_000)
    second = machine.meter(kept)
    machine.draw(1_000, 1_000_000)
    (closed,) = second.drain()
    assert {
        close.component.name: (close.energy_nanojoules, close.recovered_nanojoules) for close in closed.components
    } == {"GPU-1": (10**9, 5 * 10**9), "host": (10**9, 3 * 10**9)}
    assert [entry.recovered_nanojoules for entry in second.books().components] == [5 * 10**9, 3 * 10**9]
    assert all(
        entry.unattributed.energy_nanojoules >= entry.recovered_nanojoules for entry in second.books().components
    )


def test_sources_stay_on_the_devices_they_were_announced_with(tmp_path):
    machine = Machine(tmp_path)
    first = machine.meter()
    first.attach("encoder", [])
    second = machine.meter(first.kept())
    machine.draw(1_000, 1_000_000)
    second.submit(WorkBatch("encoder", 5, machine.now, (WorkRecord("e", "m", "t", 0.1, 0.9),), (), ("e",)))
    (closed,) = second.tick()
    # nobody runs on the GPU yet
    assert [close.component.name for close in closed.components] == ["host"]


def test_a_driver_that_was_reloaded_meanwhile_is_a_reset_and_no_joules(tmp_path):
    machine = Machine(tmp_path)
    first = machine.meter()
    first.attach("a", ["GPU-1"])
    kept = first.kept()
    machine.draw(0, 0)
    machine.gpu.millijoules = 3
    second = machine.meter(kept)
    machine.draw(7, 0)
    (closed,) = second.drain()
    assert (closed.components[0].energy_nanojoules, closed.components[0].recovered_nanojoules) == (7 * 10**6, 0)
    assert second.counters.meter_resets == 1


def test_a_cpu_model_goes_on_from_the_cores_own_times():
    busy = [0.0, 0.0]
    now = 0.0

    def meter() -> CpuPowerModel:
        return CpuPowerModel(
            [0],
            idle_watts_per_core=1.0,
            max_watts_per_core=5.0,
            memory_gb=0.0,
            sampler=lambda: [CoreTimes(one, now) for one in busy],
        )

    first = meter()
    before = first.read(0.0).components["cpu"].nanojoules
    memory = first.memory()
    busy, now = [3.0, 0.0], 4.0
    second = meter()
    second.recall(memory)
    # three of four seconds at full power
    assert second.read(4.0).components["cpu"].nanojoules - before == 16 * 10**9


def test_a_model_fed_with_work_gives_its_idle_watts_for_the_time_that_it_knows_no_work_of():
    def meter(now: float) -> NodeMeter:
        return NodeMeter(load_models=[IdleAwarePower(GPU, 20.0, 120.0)], clock=lambda: now, wall_clock=lambda: 0.0)

    first = meter(1.0)
    first.start()
    second = meter(4.0)
    second.resume(first.kept())
    second.start()
    (closed,) = second.drain(5.0)
    assert closed.components[0].recovered_nanojoules == 60 * 10**9


def test_what_was_kept_before_the_machine_started_anew_is_not_gone_on_from():
    late = NodeMeter([ScriptedMeter([GPU], [])], clock=lambda: 100.0)
    late.start()
    early = NodeMeter(load_models=[IdleAwarePower(GPU, 20.0, 120.0)], clock=lambda: 1.0, wall_clock=lambda: 0.0)
    early.resume(late.kept())
    early.start()
    (closed,) = early.drain(2.0)
    assert closed.components[0].recovered_nanojoules == 0
