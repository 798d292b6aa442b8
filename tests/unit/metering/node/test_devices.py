"""Whose devices are booked, under which boundary, and how each was metered."""

from __future__ import annotations

from typing import Any

import pytest

from metering.node import NodeMeter
from metering.node_settings import Embodied, NodeSettings
from metering.power.base import Boundary, Component
from metering.power.scripted import ConstantMeter
from metering.receipt import receipt_of
from metering.settlement import provisional
from metering.work import Method

FIRST, SECOND = Component("GPU-1", Boundary.ACCELERATOR), Component("GPU-2", Boundary.ACCELERATOR)


def meter_of_two() -> ConstantMeter:
    return ConstantMeter({FIRST: 100.0, SECOND: 300.0}, name="nvml", method=Method.MEASURED)


def node_of(world: Any, *meters: Any, on_demand: tuple[str, ...] = (), **settings: Any) -> NodeMeter:
    node = NodeMeter(meters, NodeSettings(**settings), on_demand=on_demand, clock=lambda: 0.0, wall_clock=lambda: 1.7e9)
    node.register(world.model())
    node.start(0.0)
    return node


def metered(node: NodeMeter) -> dict[str, int]:
    return {entry.component.name: entry.meter.energy_nanojoules for entry in node.books().components}


def test_a_gpu_that_no_replica_runs_on_is_not_booked(world):
    node = node_of(world, meter_of_two(), on_demand=("GPU-1", "GPU-2"))
    node.tick(1.0)
    assert metered(node) == {"GPU-1": 0, "GPU-2": 0}
    node.attach("a", ["GPU-1"], 1.0)
    node.submit(world.batch(1, 2.0, [world.record("r", 1.0, 2.0)], ["r"]), 2.0)
    before, closed = node.tick(2.0)
    assert before.components == ()
    assert metered(node) == {"GPU-1": 100 * 10**9, "GPU-2": 0}
    assert [close.component.name for close in closed.components] == ["GPU-1"]
    node.attach("b", ["GPU-2"], 2.0)
    node.submit(world.batch(2, 3.0), 3.0)
    node.submit(world.batch(1, 3.0, source="b"), 3.0)
    node.tick(3.0)
    assert metered(node) == {"GPU-1": 200 * 10**9, "GPU-2": 300 * 10**9}
    assert node.books().balanced


def test_a_source_that_was_never_announced_runs_on_all(world):
    node = node_of(world, meter_of_two(), on_demand=("GPU-1", "GPU-2"))
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    assert metered(node) == {"GPU-1": 100 * 10**9, "GPU-2": 300 * 10**9}


def test_each_component_says_how_it_was_metered(world):
    host = ConstantMeter({world.host: 20.0}, name="idle_aware")
    node = node_of(world, meter_of_two(), host)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    (closed,) = node.tick(1.0)
    assert {close.component.name: (close.method, close.power) for close in closed.components} == {
        "GPU-1": (Method.MEASURED, "nvml"),
        "GPU-2": (Method.MEASURED, "nvml"),
        "host": (Method.MODELLED, "idle_aware"),
    }
    # a sum is no better than the weakest of its parts
    receipt = node.receipt("t", "r", 1.0)
    assert receipt.method is Method.MODELLED
    assert receipt.energy_methods == {"accelerator": "measured", "host": "modelled"}
    told = provisional("r2", [world.record("r2", 1.0, 2.0)], node.rates("a"), world.model())
    assert told.energy_methods == receipt.energy_methods
    assert receipt_of(told.as_dict()) == told


def test_the_host_s_embodied_carbon_alone_does_not_pass_for_the_whole(world):
    year = 365 * 24 * 3600.0
    records = world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"])
    receipts = {}
    for known in (("host",), ("gpu", "host")):
        node = node_of(world, world.constant(), embodied={name: Embodied(1e6, 4 * year) for name in known})
        node.submit(records, 1.0)
        node.tick(1.0)
        assert node.books().balanced
        receipts[known] = node.receipt("t", "r", 1.0)
    assert receipts[("host",)].embodied_grams is None
    assert receipts[("gpu", "host")].embodied_grams == pytest.approx(2 * 1e6 / (4 * year), rel=1e-5)


def test_work_elsewhere_costs_no_device_of_the_node(world):
    node = NodeMeter([meter_of_two()], elsewhere=True, clock=lambda: 0.0, wall_clock=lambda: 1.7e9)
    node.register(world.model())
    node.start(0.0)
    node.attach("gateway", ["unmetered"], 0.0)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"], source="gateway"), 1.0)
    node.tick(1.0)
    receipt = node.receipt("t", "r", 1.0)
    assert receipt.energy_joules is None
    assert receipt.mfu_ratio == pytest.approx(0.01)
