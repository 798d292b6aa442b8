"""What a node's windows leave in the history adds up to its books."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from metering.history import History
from metering.history_rows import served_rows, window_rows
from metering.idle import IdlePolicy
from metering.node_settings import Embodied
from metering.power.base import Boundary, Component, ComponentReading, PowerUnavailable
from metering.power.scripted import ScriptedMeter
from metering.settlement import IntensityStamp
from metering.work import EngineSteps, Method, Served

STAMP = IntensityStamp(400.0, "DEU", "codecarbon 2023")


def history_of(world: Any, node: Any, closed: Any) -> History:
    out = History()
    for window in closed:
        rows = window_rows(
            window, method=node.power_method, power=node.power, peak_flops={"m": 1e6}, embodied=node.settings.embodied
        )
        out.merge(rows)
    return out


def run(world: Any, stamp: IntensityStamp | None, *meters: Any, **batch: Any) -> History:
    node = world.node(*meters, pue=1.5, idle_policy="by_time") if meters else world.node(pue=1.5)
    node.set_intensity(stamp)
    node.start(0.0)
    records = [world.record("a", 0.2, 0.8, prefill_tokens=4, cached_tokens=6), world.record("b", 0.3, 0.9, tenant="u")]
    node.submit(world.batch(1, 1.0, records, ["a", "b"], **batch), 1.0)
    return history_of(world, node, [*node.tick(1.0), *node.drain(1.5)])


def test_usage_and_what_was_not_given_add_up_to_the_meter(world: Any) -> None:
    found = run(world, STAMP, world.constant())
    given = sum(u.accelerator_nanojoules + u.host_nanojoules + u.idle_nanojoules for u in found.usage.values())
    metered = sum(n.metered_nanojoules for n in found.node.values())
    kept = metered - given
    # the window after the work holds idle only, which no request was there to take
    assert (
        0
        < kept
        == sum(n.idle_nanojoules for n in found.node.values()) - sum(u.idle_nanojoules for u in found.usage.values())
    )
    assert {key.tenant for key in found.usage} == {"t", "u"}
    assert all(usage.unstamped_nanojoules == 0 < usage.operational_nanograms for usage in found.usage.values())
    assert {key.signal for key in found.usage} == {"average"}


def test_without_intensity_the_energy_is_kept_and_marked_as_unstamped(world: Any) -> None:
    found = run(world, None, world.constant())
    for key, usage in found.usage.items():
        assert key.signal == ""
        assert usage.operational_nanograms == 0
        energy = usage.accelerator_nanojoules + usage.host_nanojoules + usage.idle_nanojoules
        assert usage.unstamped_nanojoules == energy + usage.overhead_nanojoules > 0


def test_without_a_meter_the_seconds_are_marked_as_unmetered(world: Any) -> None:
    found = run(world, STAMP)
    assert all(usage.unmetered_seconds == usage.device_seconds > 0 for usage in found.usage.values())
    assert all(totals.gap_seconds == totals.window_seconds for totals in found.node.values())


def test_a_neighbour_s_device_says_nothing_of_a_line_s_own(world: Any) -> None:
    second = Component("gpu2", Boundary.ACCELERATOR)
    node = world.node(
        ScriptedMeter([world.gpu], [{"gpu": ComponentReading(0)}, {"gpu": ComponentReading(10**11)}]),
        ScriptedMeter([second], [PowerUnavailable("the meter is away")] * 2),
        embodied={"gpu": Embodied(1e6, 1e8)},
    )
    for source, device in (("a", "gpu"), ("b", "gpu2")):
        node.attach(source, [device], 0.0)
        record = world.record(source, 0.2, 0.8, tenant=source)
        node.submit(world.batch(1, 1.0, [record], [source], source=source), 1.0)
    rows = {key.tenant: usage for key, usage in history_of(world, node, node.tick(1.0)).usage.items()}
    own, neighbour = rows["a"], rows["b"]
    assert (own.unmetered_seconds, own.embodied_seconds) == (0.0, own.device_seconds)
    assert (neighbour.unmetered_seconds, neighbour.embodied_seconds) == (neighbour.device_seconds, 0.0)
    assert neighbour.device_seconds > 0


def test_only_the_policy_reserved_leaves_no_idle_with_the_node(world: Any) -> None:
    for policy in IdlePolicy:
        node = world.node(world.constant(), idle_policy=policy)
        node.start(0.0)
        node.submit(world.batch(1, 1.0, [world.record("a", 0.2, 0.8)], ["a"]), 1.0)
        (usage,) = history_of(world, node, node.tick(1.0)).usage.values()
        assert usage.unreserved_seconds == (0.0 if policy is IdlePolicy.RESERVED else usage.device_seconds)


def test_batching_and_reuse_are_counted(world: Any) -> None:
    steps = [EngineSteps("m", 0.2, 0.9, steps=10, sequence_steps=20)]
    found = run(world, STAMP, world.constant(), steps=steps)
    together = sum(usage.roofline_seconds for usage in found.usage.values())
    alone = sum(usage.roofline_alone_seconds for usage in found.usage.values())
    assert together < alone
    # 1,000 FLOPs a token in this world: six tokens were reused
    assert sum(usage.prefix_flops_avoided for usage in found.usage.values()) == 6000
    assert all(usage.peak_flop_seconds == 1e6 * usage.device_seconds for usage in found.usage.values())


def test_work_that_was_only_modelled_is_kept_apart(world: Any) -> None:
    node = world.node(world.constant())
    node.start(0.0)
    node.submit(world.batch(1, 1.0, [replace(world.record("a", 0.2, 0.8), method=Method.SIMULATED)], ["a"]), 1.0)
    found = history_of(world, node, node.tick(1.0))
    assert {key.method for key in found.usage} == {"simulated"}


def test_served_answers_are_summed_by_model_and_tenant() -> None:
    answers = [Served("m", "t", requests=2, hits=1), Served("m", "t", requests=1), Served("m", "u", requests=1)]
    found = served_rows(answers, 125.0).served
    assert {(key.minute, key.tenant): totals.requests for key, totals in found.items()} == {(2, "t"): 3, (2, "u"): 1}


def test_a_receipt_carries_the_verdict_that_its_finish_came_with(world: Any) -> None:
    for early in (False, True):
        node = world.node(world.constant())
        node.start(0.0)
        work = world.batch(2 if early else 1, 1.0, [world.record("a", 0.2, 0.8)])
        end = replace(world.batch(1 if early else 2, 0.0 if early else 1.0, (), ["a"]), verdicts=(("a", "BYPASS"),))
        for batch in (end, work) if early else (work, end):
            node.submit(batch, 1.0)
        node.tick(1.0)
        receipt = node.receipt("t", "a", 1.0)
        assert (receipt.status, receipt.cache) == ("final", "BYPASS")
