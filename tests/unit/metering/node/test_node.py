"""The node meter: windows close on watermarks, each batch is booked once, receipts follow the windows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metering.idle import IdlePolicy
from metering.node_settings import Embodied
from metering.power.base import Boundary, Component
from metering.power.model import IdleAwarePower, NameplatePower
from metering.settlement import IntensityStamp, provisional
from metering.weights import WeightKind
from metering.work import EngineSteps, Method

GRID = IntensityStamp(360.0, "DEU", "static 2023")


def by_name(node, name):
    return next(entry for entry in node.books().components if entry.component.name == name)


def test_a_request_alone_in_a_busy_window_gets_all_of_it(world):
    node = world.node(world.constant(100.0, 20.0))
    node.set_intensity(GRID)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    (closed,) = node.tick(1.0)
    receipt = node.receipt("t", "r", 1.0)
    assert receipt.status == "final"
    assert receipt.energy_joules.accelerator == pytest.approx(100.0)
    assert receipt.energy_joules.host == pytest.approx(20.0)
    assert receipt.energy_joules.idle == 0.0
    assert receipt.operational_grams == pytest.approx(120.0 / 3.6e6 * 360.0)
    assert receipt.flops_decode == 10_000
    assert receipt.mfu_ratio == pytest.approx(10_000 / (1e6 * 1.0))
    assert receipt.estimator == "constant/roofline_time"
    assert closed.finals[0].receipt is receipt
    assert closed.engines[0].mfu_ratio == pytest.approx(0.01)


def test_mfu_of_a_request_does_not_shrink_because_others_share_the_batch(world):
    alone = world.node(world.constant())
    alone.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    alone.tick(1.0)
    shared = world.node(world.constant())
    records = [world.record(name, 0.0, 1.0) for name in ("r", "x", "y", "z")]
    shared.submit(world.batch(1, 1.0, records, ["r", "x", "y", "z"]), 1.0)
    shared.tick(1.0)
    assert shared.receipt("t", "r", 1.0).mfu_ratio == pytest.approx(4 * alone.receipt("t", "r", 1.0).mfu_ratio)


def test_idle_is_taken_from_the_idle_watts_and_the_time_without_a_request(world):
    node = world.node(world.constant(100.0, idle_watts={"gpu": 40.0}), idle_policy=IdlePolicy.NONE)
    node.submit(world.batch(1, 2.0, [world.record("r", 0.5, 1.0)], ["r"]), 2.0)
    node.tick(2.0)
    gpu = by_name(node, "gpu")
    assert gpu.idle_booked.energy_nanojoules == 60_000_000_000
    assert gpu.idle_node.energy_nanojoules == 60_000_000_000
    assert node.receipt("t", "r", 2.0).energy_joules.accelerator == pytest.approx(140.0)


def test_idle_is_in_proportion_to_time_where_the_idle_watts_are_unknown(world):
    node = world.node(world.constant(100.0), idle_policy=IdlePolicy.NONE)
    node.submit(world.batch(1, 2.0, [world.record("r", 0.5, 1.0)], ["r"]), 2.0)
    node.tick(2.0)
    assert by_name(node, "gpu").idle_booked.energy_nanojoules == 150_000_000_000


def test_energy_above_idle_without_any_work_is_unattributed(world):
    node = world.node(world.constant(100.0, idle_watts={"gpu": 40.0}))
    node.submit(world.batch(1, 1.0), 1.0)
    node.tick(1.0)
    gpu = by_name(node, "gpu")
    assert gpu.unattributed.energy_nanojoules == 60_000_000_000
    assert gpu.idle_carried.energy_nanojoules == 40_000_000_000


def test_reserved_hands_a_quiet_night_out_slowly(world):
    node = world.node(world.constant(100.0, idle_watts={"gpu": 100.0}), idle_release_seconds=60.0)
    node.submit(world.batch(1, 1000.0), 1000.0)
    node.tick(1000.0)
    node.submit(world.batch(2, 1001.0, [world.record("r", 1000.0, 1001.0)], ["r"]), 1001.0)
    node.tick(1001.0)
    # A second of work takes 1/60 of the 100 kJ (and of the host's 20 kJ) carried.
    assert node.receipt("t", "r", 1001.0).energy_joules.idle == pytest.approx(120_000.0 / 60)


@pytest.mark.parametrize("policy", [IdlePolicy.BY_TIME, IdlePolicy.BY_FLOPS])
def test_by_time_and_by_flops_share_the_idle_of_windows_with_work_only(world, policy):
    node = world.node(world.constant(100.0, 0.0), idle_policy=policy)
    node.submit(world.batch(1, 1.0), 1.0)
    node.tick(1.0)
    records = [world.record("r", 1.0, 1.5, decode_tokens=30), world.record("s", 1.0, 1.5, decode_tokens=10)]
    node.submit(world.batch(2, 2.0, records, ["r", "s"]), 2.0)
    node.tick(2.0)
    gpu = by_name(node, "gpu")
    assert gpu.idle_node.energy_nanojoules == 100_000_000_000
    assert gpu.idle_shared.energy_nanojoules == 50_000_000_000
    expected = 25.0 if policy is IdlePolicy.BY_TIME else 37.5
    assert node.receipt("t", "r", 2.0).energy_joules.idle == pytest.approx(expected)


def test_pue_adds_overhead_to_work_and_idle_alike(world):
    node = world.node(world.constant(100.0, 20.0), pue=1.1, idle_policy=IdlePolicy.BY_TIME)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 0.5)], ["r"]), 1.0)
    node.tick(1.0)
    energy = node.receipt("t", "r", 1.0).energy_joules
    assert energy.idle == pytest.approx(60.0)
    assert energy.overhead == pytest.approx(12.0)


def test_a_window_waits_for_the_watermark_of_every_live_source(world):
    node = world.node(world.constant(), grace_seconds=5.0)
    node.attach("b", now_seconds=0.0)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    assert node.tick(1.0) == ()
    node.submit(world.batch(1, 1.2, source="b"), 1.2)
    assert len(node.tick(1.2)) == 1
    assert node.counters.forced_windows == 0


def test_after_the_grace_time_a_window_closes_without_the_laggard_and_its_work_is_booked_late(world):
    node = world.node(world.constant(), grace_seconds=2.0)
    node.attach("b", now_seconds=0.0)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    closed = node.tick(3.0)
    assert closed[0].forced
    assert node.counters.forced_windows == 1
    node.submit(world.batch(1, 3.5, [world.record("late", 0.2, 0.8)], ["late"], source="b"), 3.5)
    node.submit(world.batch(2, 3.5), 3.5)
    node.tick(3.5)
    receipt = node.receipt("t", "late", 3.5)
    assert receipt.status == "final"
    assert node.counters.late_records == 1
    assert any("reported after its window had closed" in note for note in receipt.notes)


def test_late_work_that_was_told_when_its_request_ended_is_noted_but_no_fault(world):
    node = world.node(world.constant())
    node.submit(world.batch(1, 9.0), 9.0)
    node.tick(9.0)
    late = world.record("late", 0.2, 0.8, method=Method.MODELLED)
    node.submit(world.batch(2, 10.0, [late], ["late"]), 10.0)
    node.tick(10.0)
    assert any("reported after its window had closed" in note for note in node.receipt("t", "late", 10.0).notes)
    assert node.counters.late_records == 0


def test_the_same_batch_twice_is_booked_once(world):
    node = world.node(world.constant())
    batch = world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"])
    assert node.submit(batch, 1.0).booked
    assert not node.submit(batch, 1.0).booked
    node.tick(1.0)
    assert node.receipt("t", "r", 1.0).flops_decode == 10_000
    assert node.counters.duplicate_batches == 1


def test_batches_out_of_order_make_one_receipt_even_when_the_finish_overtakes_the_work(world):
    node = world.node(world.constant())
    node.submit(world.batch(2, 1.0, [], ["r"]), 1.0)
    node.submit(world.batch(1, 0.9, [world.record("r", 0.0, 0.9)]), 1.0)
    node.tick(1.0)
    assert node.receipt("t", "r", 1.0).status == "final"


def test_a_silent_source_is_dead_and_its_requests_are_booked_as_reported(world):
    node = world.node(world.constant(), silent_seconds=10.0)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)]), 1.0)
    node.tick(1.0)
    assert node.receipt("t", "r", 1.0).status == "provisional"
    node.tick(12.0)
    receipt = node.receipt("t", "r", 12.0)
    assert receipt.status == "final"
    assert "its replica stopped reporting: booked as reported" in receipt.notes
    assert node.counters.dead_sources == 1


def test_an_orderly_end_holds_no_window_and_is_no_death(world):
    node = world.node(world.constant(100.0, 20.0), silent_seconds=10.0)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.submit(replace(world.batch(1, 1.0, [world.record("s", 0.0, 1.0)], source="b"), last=True), 1.0)
    assert len(node.tick(1.0)) == 1
    assert "its replica ended: booked as reported" in node.receipt("t", "s", 1.0).notes
    for second in range(2, 30):
        node.submit(world.batch(second, float(second)), float(second))
        assert len(node.tick(float(second))) == 1
    counters = node.counters
    assert (counters.forced_windows, counters.dead_sources, counters.late_records) == (0, 0, 0)
    assert node.books().balanced


def test_a_straggler_of_a_source_that_left_is_booked_once_and_waited_for_by_nothing(world):
    node = world.node(world.constant(100.0, 20.0), grace_seconds=2.0, silent_seconds=10.0)
    node.attach("b", now_seconds=0.0)
    node.submit(replace(world.batch(2, 1.0), last=True), 1.0)
    node.submit(world.batch(1, 9.0, source="b"), 1.0)
    assert node.tick(1.0) == (), "its first batch may still come"
    node.tick(4.0)
    for _ in range(2):
        node.submit(world.batch(1, 0.5, [world.record("r", 0.0, 0.5)]), 4.0)
    node.submit(world.batch(2, 9.0, source="b"), 5.0)
    assert [closed.forced for closed in node.tick(5.0)] == [False, False]
    assert node.receipt("t", "r", 5.0).status == "final"
    counters = node.counters
    assert (counters.records, counters.dead_sources, counters.duplicate_batches) == (1, 0, 1)
    assert node.books().balanced


def test_draining_books_what_is_open_and_says_so(world):
    node = world.node(world.constant(100.0, 20.0))
    node.submit(world.batch(1, 0.4, [world.record("r", 0.0, 0.4)]), 0.4)
    (closed,) = node.drain(0.5)
    assert closed.window.seconds == pytest.approx(0.5)
    receipt = node.receipt("t", "r", 0.5)
    assert receipt.status == "final"
    assert "the node meter stopped: booked as reported" in receipt.notes
    books = node.books()
    assert books.balanced
    assert (books.open_requests, books.open_windows) == (0, 0)


def test_an_unmetered_host_is_said_to_be_missing(world):
    node = world.node(world.script([0, 10_000]))
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    assert "energy of the host is unknown and not included" in node.receipt("t", "r", 1.0).notes


def test_a_record_that_began_just_before_its_window_is_counted_late_and_makes_no_fuss(world):
    node = world.node(world.constant())
    node.set_intensity(GRID)
    node.submit(world.batch(1, 1.0), 1.0)
    node.tick(1.0)
    node.submit(world.batch(2, 2.0, [world.record("r", 0.9, 2.0)], ["r"]), 2.0)
    node.tick(2.0)
    assert node.counters.late_records == 1
    assert node.receipt("t", "r", 2.0).notes == ()


def test_work_for_a_final_receipt_reopens_it(world):
    node = world.node(world.constant())
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    node.submit(world.batch(2, 2.0, [world.record("r", 1.0, 2.0)]), 2.0)
    node.tick(2.0)
    receipt = node.receipt("t", "r", 2.0)
    assert receipt.status == "final"
    assert receipt.flops_decode == 20_000
    assert node.counters.revised_receipts == 1


def test_a_failed_reading_is_a_gap_and_the_joules_across_it_belong_to_no_request(world):
    node = world.node(world.script([0, 10_000, None, 35_000, 40_000]))
    for sequence in range(1, 5):
        record = world.record(f"r{sequence}", sequence - 1.0, float(sequence))
        node.submit(world.batch(sequence, float(sequence), [record], [f"r{sequence}"]), float(sequence))
        node.tick(float(sequence))
    assert node.receipt("t", "r1", 4.0).energy_joules.accelerator == pytest.approx(10_000e-9)
    assert node.receipt("t", "r2", 4.0).energy_joules is None
    assert node.receipt("t", "r2", 4.0).notes[0].startswith("no power reading of gpu")
    assert node.receipt("t", "r3", 4.0).energy_joules is None
    assert node.receipt("t", "r4", 4.0).energy_joules.accelerator == pytest.approx(5_000e-9)
    gpu = by_name(node, "gpu")
    assert gpu.recovered_nanojoules == 25_000
    assert gpu.meter.energy_nanojoules == 40_000
    assert gpu.gap_seconds == pytest.approx(2.0)
    assert node.counters.meter_failures == 1
    assert node.books().balanced


def test_a_counter_that_starts_anew_never_gives_negative_joules(world):
    node = world.node(world.script([1_000_000, 1_010_000, (500, 1), (10_500, 1)]))
    for at in (1.0, 2.0, 3.0):
        node.submit(world.batch(int(at), at), at)
        node.tick(at)
    gpu = by_name(node, "gpu")
    assert gpu.meter.energy_nanojoules == 20_000
    assert node.counters.meter_resets == 1


def test_without_a_meter_flops_and_mfu_are_known_and_energy_is_not(world):
    node = world.node()
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    receipt = node.receipt("t", "r", 1.0)
    assert receipt.energy_joules is None
    assert receipt.operational_grams is None
    assert receipt.mfu_ratio == pytest.approx(0.01)
    assert "power of the accelerator is unknown: no meter" in receipt.notes


def test_an_unknown_peak_gives_no_mfu_and_falls_back_to_flops_by_name(world):
    node = world.node(world.constant(), model=world.model(peak_flops=None))
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    receipt = node.receipt("t", "r", 1.0)
    assert receipt.mfu_ratio is None
    assert receipt.estimator == "constant/flops (roofline_time wanted)"


def test_an_unknown_model_falls_back_to_tokens(world):
    node = world.node(world.constant())
    records = [
        world.record("r", 0.0, 1.0, model="other", decode_tokens=30),
        world.record("s", 0.0, 1.0, decode_tokens=10),
    ]
    node.submit(world.batch(1, 1.0, records, ["r", "s"]), 1.0)
    node.tick(1.0)
    receipt = node.receipt("t", "r", 1.0)
    assert receipt.flops_decode is None
    assert receipt.energy_joules.accelerator == pytest.approx(75.0)
    assert receipt.estimator == "constant/tokens (roofline_time wanted)"
    assert node.counters.unknown_model_records == 1


def test_mfu_above_one_is_counted_and_not_clamped(world):
    node = world.node(world.constant(), model=world.model(peak_flops=5_000.0))
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    assert node.receipt("t", "r", 1.0).mfu_ratio == pytest.approx(2.0)
    assert node.counters.mfu_over_unity == 2


def test_malformed_records_are_refused_and_the_rest_of_the_batch_is_booked(world):
    node = world.node(world.constant())
    records = [
        world.record("bad", 1.0, 0.5),
        world.record("bad", 0.0, 0.5, decode_tokens=-1),
        world.record("bad", float("nan"), 0.5),
        world.record("r", 0.0, 1.0),
    ]
    node.submit(world.batch(1, 1.0, records, ["r"]), 1.0)
    node.tick(1.0)
    assert node.receipt("t", "r", 1.0).status == "final"
    assert node.counters.malformed_records == 3
    assert node.receipt("t", "bad", 1.0) is None


def test_receipts_are_per_tenant(world):
    node = world.node(world.constant())
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    assert node.receipt("someone else", "r", 1.0) is None


def test_final_receipts_are_bounded_in_number_and_age(world):
    node = world.node(world.constant(), kept_receipts=2, kept_seconds=100.0)
    for at in (1.0, 2.0, 3.0):
        name = f"r{at:.0f}"
        node.submit(world.batch(int(at), at, [world.record(name, at - 1, at)], [name]), at)
        node.tick(at)
    assert node.receipt("t", "r1", 3.0) is None
    assert node.receipt("t", "r2", 3.0) is not None
    assert node.receipt("t", "r3", 200.0) is None


def test_replicas_on_their_own_devices_pay_for_their_own(world):
    meter = world.constant(100.0, 0.0)
    node = world.node(
        meter,
        load_models=[NameplatePower(Component("gpu2", Boundary.ACCELERATOR), 500.0)],
    )
    node.attach("a", ["gpu"], 0.0)
    node.attach("b", ["gpu2"], 0.0)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"], source="a"), 1.0)
    node.submit(world.batch(1, 1.0, [world.record("s", 0.0, 1.0)], ["s"], source="b"), 1.0)
    node.tick(1.0)
    assert node.receipt("t", "r", 1.0).energy_joules.accelerator == pytest.approx(100.0)
    assert node.receipt("t", "s", 1.0).energy_joules.accelerator == pytest.approx(500.0 * 0.01)


def test_attach_to_a_device_that_is_not_metered_names_those_that_are(world):
    node = world.node(world.constant())
    with pytest.raises(ValueError, match=r"gpu7.*there are gpu, host"):
        node.attach("a", ["gpu7"])


def test_load_model_takes_the_larger_of_mfu_and_mbu(world):
    node = world.node(load_models=[IdleAwarePower(world.gpu, 20.0, 120.0)], idle_policy=IdlePolicy.NONE)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    # bytes: 100 of cache + 10 steps x 5000 of weights over 1e5/s = 0.501, above the MFU of 0.01
    assert node.receipt("t", "r", 1.0).energy_joules.accelerator == pytest.approx(20.0 + 100.0 * 0.501)


def test_the_weight_read_is_shared_by_the_mean_batch_of_the_engine_steps(world):
    node = world.node(load_models=[IdleAwarePower(world.gpu, 0.0, 100.0)])
    steps = [EngineSteps("m", 0.0, 1.0, steps=10, sequence_steps=50)]
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"], steps=steps), 1.0)
    (closed,) = node.tick(1.0)
    assert closed.engines[0].mean_batch == pytest.approx(5.0)
    assert closed.engines[0].mbu_ratio == pytest.approx((100 + 10 * 5000 / 5) / 1e5)


def test_simulated_work_makes_a_simulated_receipt(world):
    node = world.node(world.constant(method=Method.MEASURED))
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0, method=Method.SIMULATED)], ["r"]), 1.0)
    node.tick(1.0)
    assert node.receipt("t", "r", 1.0).method is Method.SIMULATED


def test_intensity_that_changes_is_averaged_by_energy(world):
    node = world.node(world.constant(100.0, 0.0))
    node.set_intensity(GRID)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)]), 1.0)
    node.tick(1.0)
    node.set_intensity(IntensityStamp(120.0, "DEU", "live"))
    node.submit(world.batch(2, 2.0, [world.record("r", 1.0, 2.0)], ["r"]), 2.0)
    node.tick(2.0)
    receipt = node.receipt("t", "r", 2.0)
    assert receipt.operational_grams == pytest.approx(100.0 * (360.0 + 120.0) / 3.6e6)
    assert receipt.intensity_grams_per_kwh == pytest.approx(240.0, rel=1e-5)


def test_no_intensity_gives_energy_and_no_grams(world):
    node = world.node(world.constant())
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    receipt = node.receipt("t", "r", 1.0)
    assert receipt.energy_joules is not None
    assert receipt.operational_grams is None


def test_embodied_carbon_accrues_by_time_without_drift(world):
    node = world.node(world.constant(), embodied={"gpu": Embodied(1_000_000.0, 4 * 365 * 86400.0)})
    for second in range(1, 3601):
        node.submit(world.batch(second, float(second)), float(second))
        node.tick(float(second))
    # 1000 kg over 4 years of 365 days, one hour (SCI's example).
    assert by_name(node, "gpu").meter.embodied_nanograms / 1e9 == pytest.approx(28.5388, abs=1e-4)


def test_a_clock_that_steps_back_changes_nothing(world):
    node = world.node(world.constant())
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    before = node.books().as_dict()["components"]
    node.tick(0.2)
    assert node.books().as_dict()["components"] == before
    assert node.counters.clock_steps_back == 1


def test_two_meters_for_one_component_are_refused(world):
    with pytest.raises(ValueError, match="single owner"):
        world.node(world.constant(), world.constant())


def test_windows_below_a_second_are_refused(world):
    with pytest.raises(ValueError, match="window_seconds must be 1 or more"):
        world.settings(window_seconds=0.5)


def test_the_weight_of_a_node_is_configurable(world):
    records = [world.record("r", 0.0, 1.0, decode_tokens=10), world.record("s", 0.0, 0.5, decode_tokens=30)]
    shares = {}
    for kind in (WeightKind.TIME, WeightKind.TOKENS, WeightKind.FLOPS):
        node = world.node(world.constant(90.0), weight=kind)
        node.submit(world.batch(1, 1.0, records, ["r", "s"]), 1.0)
        node.tick(1.0)
        shares[kind] = node.receipt("t", "r", 1.0).energy_joules.accelerator
    assert shares == pytest.approx({WeightKind.TIME: 60.0, WeightKind.TOKENS: 22.5, WeightKind.FLOPS: 22.5})


def test_a_source_on_the_host_alone_pays_for_the_host_alone(world):
    node = world.node(world.constant(100.0, 20.0))
    node.attach("engine", ["gpu"], 0.0)
    node.attach("encoder", [], 0.0)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"], source="engine"), 1.0)
    answer = node.submit(world.batch(1, 1.0, [world.record("e", 0.0, 1.0)], ["e"], source="encoder"), 1.0)
    node.tick(1.0)
    engine, encoder = node.receipt("t", "r", 1.0), node.receipt("t", "e", 1.0)
    assert engine.energy_joules.accelerator == pytest.approx(100.0)
    assert encoder.energy_joules.accelerator == 0.0
    assert encoder.energy_joules.host == pytest.approx(10.0)
    assert encoder.mfu_ratio is None
    assert node.books().balanced
    rates = node.rates("encoder")
    told = provisional("e2", [world.record("e2", 1.0, 2.0)], rates, world.model())
    assert told.energy_joules.host == pytest.approx(10.0)
    assert not any("accelerator" in note or "device" in note for note in told.notes)
    assert answer.booked
