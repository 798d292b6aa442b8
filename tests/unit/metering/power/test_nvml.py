"""The NVML meter driven by a stand-in for pynvml: several GPUs, MIG, resets, lost devices."""

# ruff: noqa: N802  (the names are those of pynvml)

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from metering.power.base import PowerUnavailable
from metering.power.nvml import NvmlMeter
from metering.power.owner import DeviceLocks


class FakeError(Exception):
    pass


@dataclass
class FakeGpu:
    uuid: str
    millijoules: int = 1000
    name: str = "NVIDIA A100-SXM4-80GB"
    migs: list[tuple[str, int]] = field(default_factory=list)
    supported: bool = True
    lost: bool = False
    reads: int = 0


class FakeNvml:
    NVMLError = FakeError

    def __init__(self, *gpus: FakeGpu, driver: bool = True) -> None:
        self.gpus = gpus
        self.driver = driver
        self.initialised = 0

    def nvmlInit(self):
        if not self.driver:
            raise FakeError("Driver Not Loaded")
        self.initialised += 1

    def nvmlShutdown(self):
        self.initialised -= 1

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle):
        return handle.uuid.encode()

    def nvmlDeviceGetName(self, handle):
        return handle.name

    def nvmlDeviceGetMigMode(self, handle):
        if "A100" not in handle.name:
            raise FakeError("Not Supported")
        return [int(bool(handle.migs))] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):
        if index >= len(handle.migs):
            raise FakeError("Not Found")
        uuid, slices = handle.migs[index]
        return SimpleNamespace(uuid=uuid, slices=slices)

    def nvmlDeviceGetAttributes(self, mig):
        return SimpleNamespace(computeInstanceSliceCount=mig.slices, gpuInstanceSliceCount=7)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        handle.reads += 1
        if not handle.supported:
            raise FakeError("Not Supported")
        if handle.lost:
            raise FakeError("GPU is lost")
        return handle.millijoules


def nanojoules(reading):
    return {name: component.nanojoules for name, component in reading.components.items()}


def test_each_gpu_is_a_component_in_nanojoules():
    one, two = FakeGpu("GPU-1", 1_000), FakeGpu("GPU-2", 5, name="NVIDIA L4")
    meter = NvmlMeter(FakeNvml(one, two), idle_watts={"NVIDIA A100-SXM4-80GB": 46.0}.get)
    reading = meter.read(1.0)
    assert nanojoules(reading) == {"GPU-1": 1_000_000_000, "GPU-2": 5_000_000}
    assert reading.components["GPU-1"].idle_watts == 46.0
    assert reading.components["GPU-2"].idle_watts is None


def test_a_reset_counter_starts_a_new_epoch():
    gpu = FakeGpu("GPU-1", 9_000)
    meter = NvmlMeter(FakeNvml(gpu))
    before = meter.read(1.0).components["GPU-1"]
    gpu.millijoules = 3
    after = meter.read(2.0).components["GPU-1"]
    assert (before.epoch, after.epoch) == (0, 1)
    gpu.millijoules = 9
    assert meter.read(3.0).components["GPU-1"].epoch == 1


def test_mig_slices_share_one_reading_of_their_gpu_by_compute_slices():
    gpu = FakeGpu("GPU-1", 7_000, migs=[("MIG-a", 3), ("MIG-b", 2)])
    meter = NvmlMeter(FakeNvml(gpu), idle_watts=lambda name: 70.0)
    gpu.reads = 0
    reading = meter.read(1.0)
    assert gpu.reads == 1
    # Two of the seven slices belong to nobody here and are not booked.
    assert nanojoules(reading) == {"MIG-a": 3_000_000_000, "MIG-b": 2_000_000_000}
    assert reading.components["MIG-a"].idle_watts == pytest.approx(30.0)


def test_a_single_mig_slice_can_be_asked_for():
    gpu = FakeGpu("GPU-1", 7_000, migs=[("MIG-a", 3), ("MIG-b", 2)])
    meter = NvmlMeter(FakeNvml(gpu, FakeGpu("GPU-2")), ["MIG-b"])
    assert [component.name for component in meter.components] == ["MIG-b"]


def test_devices_are_chosen_by_uuid_or_index_and_counted_once():
    gpus = FakeGpu("GPU-1"), FakeGpu("GPU-2"), FakeGpu("GPU-3")
    meter = NvmlMeter(FakeNvml(*gpus), ["GPU-2", "1", "2"])
    assert [component.name for component in meter.components] == ["GPU-2", "GPU-3"]


def test_a_lost_gpu_is_missing_and_the_other_is_read():
    one, two = FakeGpu("GPU-1"), FakeGpu("GPU-2")
    meter = NvmlMeter(FakeNvml(one, two))
    one.lost = True
    reading = meter.read(1.0)
    assert set(reading.components) == {"GPU-2"}
    assert reading.missing == {"GPU-1": "NVML: GPU is lost"}
    two.lost = True
    with pytest.raises(PowerUnavailable, match="GPU is lost"):
        meter.read(2.0)


@pytest.mark.parametrize(
    ("nvml", "devices", "reason"),
    [
        (FakeNvml(driver=False), None, "Driver Not Loaded; it needs an NVIDIA driver"),
        (FakeNvml(), None, "shows none"),
        (FakeNvml(FakeGpu("GPU-1", supported=False)), None, "Volta or newer"),
        (FakeNvml(FakeGpu("GPU-1")), ["GPU-1", "GPU-9"], "no GPU-9; there are GPU-1"),
    ],
)
def test_what_makes_it_unavailable_is_said_and_nothing_stays_open(nvml, devices, reason):
    with pytest.raises(PowerUnavailable, match=reason):
        NvmlMeter(nvml, devices)
    assert nvml.initialised == 0


def test_a_second_meter_of_the_same_gpu_is_refused_until_the_first_is_closed(tmp_path):
    nvml = FakeNvml(FakeGpu("GPU-1"), FakeGpu("GPU-2"))
    first = NvmlMeter(nvml, ["GPU-1"], locks=DeviceLocks(tmp_path))
    with pytest.raises(PowerUnavailable, match="GPU-1 is metered by process"):
        NvmlMeter(nvml, locks=DeviceLocks(tmp_path))
    # All or nothing: the refused meter kept no lock on the other GPU.
    NvmlMeter(nvml, ["GPU-2"], locks=DeviceLocks(tmp_path)).close()
    first.close()
    NvmlMeter(nvml, locks=DeviceLocks(tmp_path)).close()
    assert nvml.initialised == 0
