"""The CPU's measured bandwidth and peak, once a machine, kept in the user's cache folder.

Without a bandwidth no roofline can be drawn, and no table knows that of a virtual machine. The measurement
takes about two seconds on the engine's own cores, before anything else is started.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import platformdirs

from metering.errors import BadInput
from metering.hardware.calibrate import Calibration
from metering.hardware.cpu import read_cpu
from metering.hardware.device import DetectedHardware, Figure

_TIMEOUT_SECONDS = 120
_MEASURE = """
import json, sys
from dataclasses import asdict
from metering.hardware.calibrate import calibrate
print(json.dumps(asdict(calibrate())))
"""


def calibration_file(cores: Sequence[int], folder: Path | None = None) -> Path:
    """One file per kind of CPU and number of cores."""
    cpu = read_cpu()
    # sorted: the order of a set's text differs from process to process, and the clock reported from moment to moment
    kind = cpu and (cpu.vendor, cpu.family, cpu.model, cpu.stepping, cpu.model_name, cpu.threads, sorted(cpu.flags))
    identity = f"{kind}:{len(cores)}"
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return (folder or Path(platformdirs.user_cache_dir("wattgate"))) / f"calibration-{name}.json"


def load_calibration(cores: Sequence[int], folder: Path | None = None) -> Calibration | None:
    """What an earlier run measured; None where there is nothing or it cannot be read."""
    try:
        return Calibration(**json.loads(calibration_file(cores, folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def ensure_calibration(cores: Sequence[int], tell: Callable[[str], None], folder: Path | None = None) -> None:
    """Measure if no earlier run did. A failure is told and leaves the figures unknown."""
    if load_calibration(cores, folder) is not None:
        return
    tell(f"measuring the engine's {len(cores)} core(s) once: peak and memory bandwidth")
    threads = {name: str(len(cores)) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=True,
            env={**os.environ, **threads},
            preexec_fn=lambda: os.sched_setaffinity(0, set(cores)),
        )
        measured = Calibration(**json.loads(done.stdout))
        path = calibration_file(cores, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(asdict(measured)))
        partial.replace(path)
    except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
        tell(f"the CPU could not be measured ({type(error).__name__}): no memory bandwidth, no roofline")


def with_calibration(hardware: DetectedHardware, cores: Sequence[int], folder: Path | None = None) -> DetectedHardware:
    """The measured bandwidth, and the larger of the measured and the computed peak: a busy machine understates
    the one, a base clock below the boost the other.
    """
    measured = load_calibration(cores, folder)
    if measured is None:
        return hardware
    computed = hardware.device.peak_flops.get("fp32")
    configured = hardware.device.bandwidth_bytes_per_second
    try:
        applied = measured.applied(hardware)
    except BadInput:
        return hardware
    device = applied.device
    if computed is not None and computed.value >= measured.flops_per_second:
        device = replace(device, peak_flops={**device.peak_flops, "fp32": computed}, notes=hardware.device.notes)
    if configured is not None:
        device = replace(device, bandwidth_bytes_per_second=Figure(configured.value, configured.source))
    return replace(applied, device=device)
