"""NVIDIA GPUs by NVML's energy counter (``nvmlDeviceGetTotalEnergyConsumption``): millijoules since driver load.

The counter is read, never the power: power readings of A100 and H100 sample a quarter of the time (Yang, Adamek and
Armour 2024). Volta and newer have the counter. With MIG every slice repeats the energy of the whole GPU, so the GPU
is read once by UUID and a slice gets its share of the compute slices; what no slice of ours holds is not booked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from metering.power.base import Boundary, Component, ComponentReading, PowerUnavailable, Reading
from metering.power.epochs import EpochCounter
from metering.power.owner import DeviceLocks
from metering.work import Method

NANOJOULES_PER_MILLIJOULE = 1_000_000
IdleWatts = Callable[[str], float | None]
"""Idle watts of a whole GPU by its product name, as the hardware catalogue knows them."""


@dataclass(slots=True)
class _Slice:
    component: Component
    slices: int
    of: int


@dataclass(slots=True)
class _Gpu:
    uuid: str
    handle: Any
    idle_watts: float | None
    slices: list[_Slice]
    counter: EpochCounter = field(default_factory=EpochCounter)


class NvmlMeter:
    """All GPUs that NVML shows, or those named. Components carry the UUID of the GPU or of the MIG slice.

    Args:
        nvml: the ``pynvml`` module (or a stand-in).
        devices: UUIDs of GPUs or MIG slices, or indices as strings, to meter; None: all.
        idle_watts: idle watts of a whole GPU by product name; unknown ones make idle proportional to time.
        locks: ownership of each device on this machine; None: not checked.

    Raises:
        PowerUnavailable: no driver, no GPU, no energy counter, a device that is not there or has another owner.
    """

    name = "nvml"
    method = Method.MEASURED

    def __init__(
        self,
        nvml: Any,
        devices: Collection[str] | None = None,
        *,
        idle_watts: IdleWatts = lambda name: None,
        locks: DeviceLocks | None = None,
    ) -> None:
        self._nvml = nvml
        self._locks = locks
        self._open = False
        try:
            nvml.nvmlInit()
            self._open = True
            self._gpus = [
                gpu for index in range(nvml.nvmlDeviceGetCount()) if (gpu := self._gpu(index, devices, idle_watts))
            ]
            for gpu in self._gpus:
                nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
        except nvml.NVMLError as error:
            self._shutdown()
            raise PowerUnavailable(
                f"NVML: {error}; it needs an NVIDIA driver and GPUs with an energy counter (Volta or newer)"
            ) from None
        try:
            self._check(devices)
            if locks is not None:
                locks.acquire([component.name for component in self.components])
        except PowerUnavailable:
            self._shutdown()
            raise

    @property
    def components(self) -> tuple[Component, ...]:
        return tuple(part.component for gpu in self._gpus for part in gpu.slices)

    def read(self, now_seconds: float) -> Reading:
        """Each GPU once; one that does not answer is missing, the others are read."""
        components: dict[str, ComponentReading] = {}
        missing: dict[str, str] = {}
        for gpu in self._gpus:
            try:
                millijoules = int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle))
            except self._nvml.NVMLError as error:
                missing.update({part.component.name: f"NVML: {error}" for part in gpu.slices})
                continue
            total = gpu.counter.follow(millijoules) * NANOJOULES_PER_MILLIJOULE
            for part in gpu.slices:
                idle = None if gpu.idle_watts is None else gpu.idle_watts * part.slices / part.of
                components[part.component.name] = ComponentReading(
                    total * part.slices // part.of, idle, gpu.counter.epoch
                )
        if missing and not components:
            raise PowerUnavailable("; ".join(sorted(set(missing.values()))))
        return Reading(now_seconds, components, missing)

    def memory(self) -> dict[str, EpochCounter]:
        return {gpu.uuid: copy(gpu.counter) for gpu in self._gpus}

    def recall(self, memory: Mapping[str, EpochCounter]) -> None:
        """The driver's counter goes on while nobody reads it; a fall since then starts a new epoch."""
        for gpu in self._gpus:
            gpu.counter = copy(memory.get(gpu.uuid, gpu.counter))

    def close(self) -> None:
        if self._locks is not None:
            self._locks.release([component.name for component in self.components])
        self._shutdown()

    def _shutdown(self) -> None:
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()

    def _gpu(self, index: int, devices: Collection[str] | None, idle_watts: IdleWatts) -> _Gpu | None:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        whole = devices is None or uuid in devices or str(index) in devices
        slices = [part for part in self._slices(handle) if devices is None or whole or part.component.name in devices]
        if not slices:
            if not whole or self._is_mig(handle):
                return None
            slices = [_Slice(Component(uuid, Boundary.ACCELERATOR), 1, 1)]
        return _Gpu(uuid, handle, idle_watts(_text(nvml.nvmlDeviceGetName(handle))), slices)

    def _is_mig(self, handle: Any) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(handle)[0])
        except self._nvml.NVMLError:
            return False

    def _slices(self, handle: Any) -> list[_Slice]:
        """MIG slices of a GPU with their compute slices; as many MIG devices fit on a GPU as it has slices."""
        if not self._is_mig(handle):
            return []
        nvml = self._nvml
        of = int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
        out = []
        for index in range(of):
            try:
                mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            except nvml.NVMLError:
                continue
            count = int(nvml.nvmlDeviceGetAttributes(mig).computeInstanceSliceCount)
            component = Component(_text(nvml.nvmlDeviceGetUUID(mig)), Boundary.ACCELERATOR, count / of)
            out.append(_Slice(component, count, of))
        return out

    def _check(self, devices: Collection[str] | None) -> None:
        if not self._gpus:
            wanted = f" of {', '.join(sorted(devices))}" if devices else ""
            raise PowerUnavailable(f"NVML shows none{wanted}: check the device names (nvidia-smi -L)")
        names = {part.component.name for gpu in self._gpus for part in gpu.slices} | {gpu.uuid for gpu in self._gpus}
        unknown = sorted(device for device in devices or () if device not in names and not device.isdigit())
        if unknown:
            raise PowerUnavailable(f"NVML shows no {', '.join(unknown)}; there are {', '.join(sorted(names))}")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
