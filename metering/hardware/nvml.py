"""GPUs as NVIDIA's management library names them; nothing where there is no driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NvmlDevice:
    """One physical GPU, with its MIG slices."""

    index: int
    name: str
    uuid: str
    memory_bytes: int | None = None
    limit_watts: float | None = None
    """The power limit enforced, which an operator may have set below the board's."""
    is_mig: bool = False
    """Divided: its slices can be worked on, and not the whole."""
    slices: tuple[str, ...] = ()
    """UUIDs of its MIG slices."""


def list_gpus() -> tuple[NvmlDevice, ...]:
    """Every GPU that the driver shows; empty without ``nvidia-ml-py``, without a driver or without permission."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_describe(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _describe(nvml: Any, index: int) -> NvmlDevice:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        memory = None
    try:
        limit = nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
    except nvml.NVMLError:
        limit = None
    name, uuid = str(nvml.nvmlDeviceGetName(handle)), str(nvml.nvmlDeviceGetUUID(handle))
    is_mig, slices = _slices(nvml, handle)
    return NvmlDevice(index, name, uuid, memory, limit, is_mig, slices)


def _slices(nvml: Any, handle: Any) -> tuple[bool, tuple[str, ...]]:
    try:
        if not nvml.nvmlDeviceGetMigMode(handle)[0]:
            return False, ()
        most = int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    except nvml.NVMLError:
        return False, ()
    found = []
    for index in range(most):
        try:
            mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:
            continue
        found.append(str(nvml.nvmlDeviceGetUUID(mig)))
    return True, tuple(found)
