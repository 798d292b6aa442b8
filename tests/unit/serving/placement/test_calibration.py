from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from metering.hardware.calibrate import Calibration
from metering.hardware.device import DetectedHardware, Device, Figure
from serving.placement.calibration import calibration_file, load_calibration, with_calibration


def stored(folder: Path, flops: float) -> None:
    measured = Calibration(flops, 10e9, threads=1, matrix_size=8, stream_bytes=64, seconds=0.1)
    calibration_file([1], folder).write_text(json.dumps(asdict(measured)))


def hardware(bandwidth: float | None = None) -> DetectedHardware:
    device = Device(
        name="cpu",
        kind="cpu",
        peak_flops={"fp32": Figure(72e9, "computed")},
        bandwidth_bytes_per_second=None if bandwidth is None else Figure(bandwidth, "configured"),
    )
    return DetectedHardware(device, 1, threads=1)


@pytest.mark.parametrize(("measured", "kept"), [(90e9, 90e9), (40e9, 72e9)])
def test_the_larger_peak_counts(tmp_path: Path, measured: float, kept: float) -> None:
    stored(tmp_path, measured)
    device = with_calibration(hardware(), [1], tmp_path).device
    assert device.peak_flops["fp32"].value == kept
    assert device.bandwidth_bytes_per_second == Figure(10e9, "measured: copy of 0 MB, numpy, 1 threads")


def test_a_configured_bandwidth_is_kept(tmp_path: Path) -> None:
    stored(tmp_path, 90e9)
    device = with_calibration(hardware(bandwidth=5e9), [1], tmp_path).device
    assert device.bandwidth_bytes_per_second == Figure(5e9, "configured")


def test_without_a_measurement_nothing_changes(tmp_path: Path) -> None:
    assert with_calibration(hardware(), [1], tmp_path) == hardware()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: str) -> None:
    calibration_file([1], tmp_path).write_text(content)
    assert load_calibration([1], tmp_path) is None


def test_other_cores_have_their_own_file(tmp_path: Path) -> None:
    assert calibration_file([1], tmp_path) != calibration_file([1, 2], tmp_path)


def test_every_process_looks_for_the_same_file() -> None:
    code = "from serving.placement.calibration import calibration_file; print(calibration_file((0,)))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
