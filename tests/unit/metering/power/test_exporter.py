"""Energy counters read from the pages of DCGM and Kepler exporters."""

from __future__ import annotations

import httpx
import pytest

from metering.power.base import Boundary, Component, PowerUnavailable
from metering.power.exporter import ExporterMeter, dcgm_energy, http_fetch, kepler_energy

HOST = Component("host", Boundary.HOST)
DCGM = """\
# HELP DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION Total energy consumption since boot (in mJ).
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="GPU-1",modelName="A100",GPU_I_ID="1"}} {one}
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="GPU-1",modelName="A100",GPU_I_ID="2"}} {one}
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="1",UUID="GPU-2",modelName="A100"}} {two}
# TYPE DCGM_FI_DEV_GPU_TEMP gauge
DCGM_FI_DEV_GPU_TEMP{{gpu="0",UUID="GPU-1"}} 41
"""
KEPLER = """\
# TYPE kepler_node_cpu_joules_total counter
kepler_node_cpu_joules_total{zone="package",path="/sys/a"} 100.5
kepler_node_cpu_joules_total{zone="core",path="/sys/b"} 60
kepler_node_cpu_joules_total{zone="dram",path="/sys/c"} 10
kepler_node_cpu_joules_total{zone="psys",path="/sys/d"} 500
"""


class Page:
    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self) -> str:
        return self.text


def test_dcgm_is_read_in_millijoules_and_slices_are_counted_once():
    meter = ExporterMeter(Page(DCGM.format(one=1500, two=2)), dcgm_energy(), name="dcgm")
    reading = meter.read(1.0)
    assert {name: c.nanojoules for name, c in reading.components.items()} == {
        "GPU-1": 1_500_000_000,
        "GPU-2": 2_000_000,
    }


def test_dcgm_is_limited_to_the_devices_named():
    meter = ExporterMeter(Page(DCGM.format(one=1, two=2)), dcgm_energy(["GPU-2"]), name="dcgm")
    assert [component.name for component in meter.components] == ["GPU-2"]


def test_kepler_sums_packages_and_dram_only():
    meter = ExporterMeter(Page(KEPLER), kepler_energy(HOST), name="kepler")
    assert meter.read(1.0).components["host"].nanojoules == round(110.5e9)


def test_older_kepler_is_read_too():
    page = "\n".join(
        [
            'kepler_node_package_joules_total{package="0",mode="dynamic"} 5',
            'kepler_node_package_joules_total{package="0",mode="idle"} 7',
            'kepler_node_dram_joules_total{package="0",mode="dynamic"} 1',
            'kepler_node_core_joules_total{package="0",mode="dynamic"} 4\n',
        ]
    )
    assert ExporterMeter(Page(page), kepler_energy(HOST), name="kepler").read(1.0).components["host"].nanojoules == (
        13 * 10**9
    )


def test_a_counter_that_did_not_move_is_no_news_and_not_no_joules():
    page = Page(DCGM.format(one=1500, two=2))
    meter = ExporterMeter(page, dcgm_energy(), name="dcgm")
    meter.read(1.0)
    page.text = DCGM.format(one=1600, two=2)
    reading = meter.read(2.0)
    assert set(reading.components) == {"GPU-1"}
    assert "make the windows longer" in reading.missing["GPU-2"]


def test_an_exporter_that_restarts_begins_a_new_epoch():
    page = Page(DCGM.format(one=1500, two=2))
    meter = ExporterMeter(page, dcgm_energy(["GPU-1"]), name="dcgm")
    meter.read(1.0)
    page.text = DCGM.format(one=3, two=2)
    assert meter.read(2.0).components["GPU-1"].epoch == 1


def test_a_gpu_that_disappears_is_missing():
    page = Page(DCGM.format(one=1500, two=2))
    meter = ExporterMeter(page, dcgm_energy(), name="dcgm")
    page.text = KEPLER
    assert set(meter.read(1.0).missing) == {"GPU-1", "GPU-2"}


@pytest.mark.parametrize(
    ("page", "reason"), [(KEPLER, "no energy counter"), ("{{{ not a page", "not Prometheus text"), ("", "no energy")]
)
def test_a_page_without_energy_is_refused(page, reason):
    with pytest.raises(PowerUnavailable, match=reason):
        ExporterMeter(Page(page), dcgm_energy(), name="dcgm")


def test_an_exporter_that_does_not_answer_is_named(monkeypatch):
    def refuse(url, timeout):
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "get", refuse)
    with pytest.raises(PowerUnavailable, match=r"exporter http://gpu-7:9400/metrics: refused"):
        http_fetch("http://gpu-7:9400/metrics")()
