"""One owner for each device of a machine."""

from __future__ import annotations

import os

import pytest

from metering.power.base import PowerUnavailable
from metering.power.owner import DeviceLocks


def test_a_device_has_one_owner_who_is_named(tmp_path):
    first, second = DeviceLocks(tmp_path), DeviceLocks(tmp_path)
    first.acquire(["GPU-1"])
    with pytest.raises(PowerUnavailable, match=f"GPU-1 is metered by process {os.getpid()} already"):
        second.acquire(["GPU-0", "GPU-1"])
    first.acquire(["GPU-0"])
    first.release(["GPU-1", "never held"])
    second.acquire(["GPU-1"])


def test_a_dead_owner_leaves_the_device_free(tmp_path):
    child = os.fork()
    if child == 0:
        DeviceLocks(tmp_path).acquire(["GPU-1"])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    DeviceLocks(tmp_path).acquire(["GPU-1"])


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PowerUnavailable, match=r"cannot lock GPU-1 .*give another folder"):
        DeviceLocks(tmp_path / "file").acquire(["GPU-1"])


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "GPU-1.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PowerUnavailable, match="cannot lock GPU-1"):
        DeviceLocks(tmp_path).acquire(["GPU-1"])
    assert not (tmp_path / "elsewhere").exists()
