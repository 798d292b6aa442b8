"""CUDA_VISIBLE_DEVICES as CUDA reads it."""

from __future__ import annotations

import pytest

from metering.hardware.nvml import NvmlDevice
from metering.hardware.visible import visible_devices

WHOLE = tuple(NvmlDevice(index, "L4", f"GPU-{index}{index}") for index in range(3))
DIVIDED = (WHOLE[0], NvmlDevice(1, "H100", "GPU-mig", is_mig=True, slices=("MIG-a1", "MIG-b2")), WHOLE[2])


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        (None, ("GPU-00", "GPU-11", "GPU-22")),
        ("2, 0", ("GPU-22", "GPU-00")),
        ("GPU-2,GPU-1", ("GPU-22", "GPU-11")),
        ("1,1", ("GPU-11",)),
        ("0,-1,2", ("GPU-00",)),
        ("0,7,2", ("GPU-00",)),
        ("GPU-,1", ()),
        ("", ()),
        ("NoDevFiles", ()),
    ],
)
def test_entries_are_numbers_or_beginnings_of_uuids_up_to_the_first_that_names_nothing(setting, shown):
    assert visible_devices(setting, WHOLE) == shown


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        (None, ("MIG-a1",)),
        ("MIG-b2", ("MIG-b2",)),
        ("MIG-b,MIG-a", ("MIG-b2",)),
        ("MIG-", ()),
        ("1", ("MIG-a1",)),
        ("GPU-mig", ("MIG-a1",)),
        ("0,2", ("GPU-00", "GPU-22")),
    ],
)
def test_of_slices_cuda_shows_one_and_no_gpu_beside_it(setting, shown):
    assert visible_devices(setting, DIVIDED) == shown


def test_a_divided_gpu_without_slices_is_no_device():
    empty = (WHOLE[0], NvmlDevice(1, "H100", "GPU-mig", is_mig=True))
    assert visible_devices(None, empty) == ("GPU-00",)
    assert visible_devices("1,0", empty) == ()
