"""Provisional receipts, and those of cache hits."""

from __future__ import annotations

import pytest

from metering.intensity.reading import IntensityReading, Quality
from metering.node_settings import Embodied
from metering.receipt import EnergyJoules, Receipt
from metering.settlement import IntensityStamp, Rates, hit_receipt, provisional, weakest
from metering.work import Method

GRID = IntensityStamp(360.0, "DEU", "static 2023")


def test_a_steady_load_has_the_same_provisional_and_final_receipt(world):
    prices = {"prices_per_hour": {"gpu": 3.6}, "price_per_kwh": 0.3}
    node = world.node(world.constant(100.0, 20.0), pue=1.1, embodied={"gpu": Embodied(1e6, 1e8)}, **prices)
    node.set_intensity(GRID)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    record = world.record("s", 1.0, 2.0)
    rates = node.submit(world.batch(2, 2.0, [record], ["s"]), 2.0).rates
    early = provisional("s", [record], rates, world.model())
    node.tick(2.0)
    late = node.receipt("t", "s", 2.0)
    assert (early.status, late.status) == ("provisional", "final")
    assert early.energy_joules.total == pytest.approx(late.energy_joules.total)
    assert early.energy_joules.overhead == pytest.approx(late.energy_joules.overhead)
    assert early.operational_grams == pytest.approx(late.operational_grams)
    assert early.embodied_grams == pytest.approx(late.embodied_grams)
    assert early.cost == pytest.approx(late.cost)
    assert late.cost["devices"] == pytest.approx(0.001)
    assert late.cost["electricity"] == pytest.approx(late.energy_joules.total / 3.6e6 * 0.3)
    assert early.mfu_ratio == pytest.approx(late.mfu_ratio)
    assert (early.estimator, early.method, early.zone) == (late.estimator, late.method, late.zone)
    assert (early.flops_prefill, early.flops_decode) == (late.flops_prefill, late.flops_decode)


def test_before_any_window_has_closed_energy_is_unknown_and_flops_are_not(world):
    receipt = provisional("r", [world.record("r", 0.0, 1.0)], Rates(), world.model())
    assert receipt.energy_joules is None
    assert receipt.flops_decode == 10_000
    assert any("no window with work has closed yet" in note for note in receipt.notes)


def test_rates_in_a_unit_that_the_work_cannot_be_weighed_in_give_no_share(world):
    node = world.node(world.constant())
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.tick(1.0)
    receipt = provisional("s", [world.record("s", 1.0, 2.0)], node.rates("a"), None)
    assert receipt.energy_joules is None
    assert any("its rates are per roofline_time" in note for note in receipt.notes)


def test_rates_of_a_replica_are_those_of_its_devices_and_the_host(world):
    node = world.node(world.constant())
    node.attach("elsewhere", [], 0.0)
    node.submit(world.batch(1, 1.0, [world.record("r", 0.0, 1.0)], ["r"]), 1.0)
    node.submit(world.batch(1, 1.0, source="elsewhere"), 1.0)
    node.tick(1.0)
    assert [rate.component for rate in node.rates("a").components] == ["gpu", "host"]
    assert [rate.component for rate in node.rates("elsewhere").components] == ["host"]


def test_a_hit_costs_its_lookup_and_avoids_the_work_but_not_the_idle():
    original = Receipt(
        "o",
        status="final",
        energy_joules=EnergyJoules(accelerator=80.0, host=20.0, idle=100.0, overhead=20.0),
        intensity_grams_per_kwh=360.0,
        method=Method.MEASURED,
    )
    receipt = hit_receipt(
        "h",
        original,
        cache="HIT-EXACT",
        lookup_cpu_seconds=0.01,
        host_watts_per_core=4.0,
        pue=1.1,
        intensity=GRID,
        price_per_kwh=0.3,
    )
    assert receipt.energy_methods == {"host": "modelled"}
    assert receipt.energy_joules.host == pytest.approx(0.04)
    assert receipt.energy_joules.total == pytest.approx(0.044)
    assert receipt.avoided_joules == pytest.approx(110.0 - 0.044)
    assert receipt.avoided_grams == pytest.approx((110.0 - 0.044) / 3.6e6 * 360.0)
    assert receipt.avoided_cost == pytest.approx((110.0 - 0.044) / 3.6e6 * 0.3)
    assert (receipt.flops_prefill, receipt.flops_decode, receipt.cache) == (0, 0, "HIT-EXACT")
    assert receipt.method is Method.MODELLED


def test_a_hit_whose_costs_are_unknown_claims_nothing():
    receipt = hit_receipt("h", None, cache="HIT-EXACT", lookup_cpu_seconds=0.01, host_watts_per_core=None)
    assert receipt.energy_joules is None
    assert receipt.avoided_joules == 0.0
    assert receipt.avoided_cost is None
    assert len(receipt.notes) == 3


def test_a_stamp_names_what_limits_a_reading():
    stale = IntensityReading(300.0, "DE", "watttime", Quality.STALE, signal="marginal")
    assert IntensityStamp.of(stale) == IntensityStamp(300.0, "DE", "watttime (stale, marginal)", "marginal", "stale")
    plain = IntensityReading(381.0, "DEU", "codecarbon 2023", Quality.STATIC)
    assert IntensityStamp.of(plain).source == "codecarbon 2023"


def test_the_method_of_a_sum_is_the_weakest():
    assert weakest([Method.MEASURED, Method.SIMULATED, Method.MODELLED]) is Method.SIMULATED
    assert weakest([Method.MEASURED]) is Method.MEASURED


def test_a_stamp_names_the_source_that_it_stands_in_for():
    mean = IntensityReading(381.0, "DEU", "codecarbon 2023", Quality.STATIC, fallback_from="electricitymaps")
    assert IntensityStamp.of(mean).source == "codecarbon 2023 (in place of electricitymaps)"
