"""What this machine has: GPUs by NVML, else its CPU by ``/proc/cpuinfo``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metering.hardware.catalogue import cpu_model_of, device_by_nvml_name, find_device, median_cpu
from metering.hardware.cpu import CPUINFO, CpuIdentity, read_cpu
from metering.hardware.device import DetectedHardware, Device, Figure
from metering.hardware.nvml import NvmlDevice, list_gpus
from metering.hardware.visible import VARIABLE, visible_devices


def detect(
    *,
    device: str | None = None,
    threads: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    gpus: Callable[[], tuple[NvmlDevice, ...]] = list_gpus,
    cpuinfo: Path = CPUINFO,
    environment: Mapping[str, str] = os.environ,
) -> DetectedHardware:
    """The accelerators that this process may work on, or the CPU where there are none.

    GPUs that ``CUDA_VISIBLE_DEVICES`` hides belong to others: they are left out, and the notes name them.

    Args:
        device: a catalogue name that the operator states, instead of what the driver says; ``cpu`` skips GPUs.
        threads: hardware threads that the engine may use, for a CPU; all of them by default.
        overrides: the operator's own figures, as :meth:`Device.overridden` takes them, per device.
        gpus: NVML's list; a test's own.
        cpuinfo: the kernel's file; a test's own.
        environment: holds ``CUDA_VISIBLE_DEVICES`` or not; a test's own.

    Raises:
        UnknownDevice: ``device`` is not in the catalogue.
        BadInput: an override that makes no sense.
    """
    found = None if device == "cpu" else _accelerators(gpus(), device, environment.get(VARIABLE))
    if found is None:
        found = _cpu(read_cpu(cpuinfo), threads)
    return replace(found, device=found.device.overridden(overrides or {}))


def detect_cpu(threads: int | None = None, *, cpuinfo: Path = CPUINFO) -> DetectedHardware:
    """The host's CPU, whatever accelerators it has: the host boundary of the books."""
    return _cpu(read_cpu(cpuinfo), threads)


def _accelerators(all_here: tuple[NvmlDevice, ...], stated: str | None, setting: str | None) -> DetectedHardware | None:
    uuids = visible_devices(setting, all_here)
    present = tuple(one for one in all_here if not {one.uuid, *one.slices}.isdisjoint(uuids))
    if stated is not None:
        device = find_device(stated)
        return DetectedHardware(_as_seen(device, all_here, uuids), max(len(uuids), 1), uuids=uuids)
    if not present:
        return None
    names = {one.name for one in present}
    name = present[0].name
    alike = tuple(one for one in present if one.name == name)
    known = device_by_nvml_name(name)
    if known is None:
        memory = alike[0].memory_bytes
        known = Device(
            name=name,
            kind="gpu",
            memory_bytes=None if memory is None else Figure(float(memory), "NVML"),
            max_watts=None if alike[0].limit_watts is None else Figure(alike[0].limit_watts, "NVML power limit"),
            notes=("This GPU is not in the catalogue: no MFU until its peak is configured.",),
        )
    if len(names) > 1:
        note = f"Other GPUs are here too and not counted: {', '.join(sorted(names - {name}))}."
        known = replace(known, notes=(*known.notes, note))
    mine = tuple(uuid for uuid in uuids if any(uuid in (one.uuid, *one.slices) for one in alike))
    return DetectedHardware(_as_seen(known, all_here, uuids), len(mine), uuids=mine)


def _as_seen(device: Device, all_here: tuple[NvmlDevice, ...], uuids: tuple[str, ...]) -> Device:
    """The device with notes on what of the machine is left out; a MIG slice has no peak that anyone published."""
    names = [uuid for one in all_here for uuid in (one.slices if one.is_mig else (one.uuid,))]
    hidden = [name for name in names if name not in uuids]
    notes = list(device.notes)
    if hidden:
        notes.append(f"Left out, as {VARIABLE} or MIG hides them from the engine: {', '.join(hidden)}.")
    if any(uuid in one.slices for one in all_here for uuid in uuids):
        notes.append(
            "A MIG slice: watts and embodied mass are the whole GPU's. It is given its share where the driver counts "
            "energy; elsewhere its energy, mass and cost are unknown. Its peak and bandwidth are unknown until "
            "configured."
        )
        device = replace(device, peak_flops=MappingProxyType({}), bandwidth_bytes_per_second=None)
    return replace(device, notes=tuple(notes))


def _cpu(cpu: CpuIdentity | None, threads: int | None) -> DetectedHardware:
    if cpu is None:
        notes = ("The kernel does not describe this CPU: configure peak, watts and embodied mass.",)
        count = threads or os.cpu_count() or 1
        return DetectedHardware(Device(name="unknown CPU", kind="cpu", notes=notes), threads=count)
    used = min(threads or cpu.threads, cpu.threads)
    model = cpu_model_of(cpu)
    if model is None and cpu.is_x86:
        model = median_cpu(cpu.model_name or "unknown x86 CPU")
    if model is None:
        notes = ("No CPU of this architecture is in the catalogue: configure peak, watts and embodied mass.",)
        device = Device(name=f"{cpu.model_name or 'unknown CPU'}, {used} vCPU", kind="cpu", notes=notes)
    else:
        device = model.device(cpu, used)
    if cpu.virtual:
        note = "A virtual machine: threads may show as cores and the clock is the base clock; calibrate the peak."
        device = replace(device, notes=(*device.notes, note))
    return DetectedHardware(replace(device, memory_bytes=_installed_memory()), threads=used)


def _installed_memory() -> Figure | None:
    try:
        return Figure(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), "kernel")
    except (ValueError, OSError):
        return None
