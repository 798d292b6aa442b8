"""GPUs as NVIDIA's management library names them; nothing where there is no driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NvmlDevice:
    """One physical GPU; MIG slices are not devices of their own."""

    index: int
    name: str
    uuid: str
    memory_bytes: int | None = None
    limit_watts: float | None = None
    """The power limit enforced, which an operator may have set below the board's."""


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
    return NvmlDevice(index, str(nvml.nvmlDeviceGetName(handle)), str(nvml.nvmlDeviceGetUUID(handle)), memory, limit)
