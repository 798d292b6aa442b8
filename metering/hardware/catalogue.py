"""The hardware catalogue: ``catalogue.yaml`` read into devices, and their look-up by name, NVML name or CPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import yaml

from metering.errors import UnknownDevice, nearest
from metering.hardware.cpu import AMX_SOURCE, CpuIdentity, amx_flops_per_cycle, fp32_flops_per_cycle
from metering.hardware.device import Device, Figure


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A generation of server CPUs; figures per vCPU."""

    name: str
    idle_watts: Figure
    max_watts: Figure
    embodied_kilograms: Figure | None = None
    embodied_scope: str | None = None
    avx512_units: int = 1
    flops_per_cycle: Figure | None = None
    notes: tuple[str, ...] = ()

    def device(self, cpu: CpuIdentity, threads: int) -> Device:
        """The device that ``threads`` threads of this CPU make; peak from cores, clock and FLOPs per cycle.

        A host that runs two threads per core shares that core's units, so threads count as the cores they cover.
        """
        cores = threads * cpu.cores / cpu.threads
        return Device(
            name=f"{self.name}, {threads} vCPU",
            kind="cpu",
            peak_flops=MappingProxyType(self._peak(cpu, cores)),
            idle_watts=_times(self.idle_watts, threads),
            max_watts=_times(self.max_watts, threads),
            embodied_kilograms=None if self.embodied_kilograms is None else _times(self.embodied_kilograms, threads),
            embodied_scope=self.embodied_scope,
            notes=self.notes,
        )

    def per_vcpu(self) -> Device:
        """One vCPU, for planning on a machine that is not this one: its peak depends on a clock, so it is unknown."""
        return Device(
            name=f"{self.name}, 1 vCPU",
            kind="cpu",
            idle_watts=self.idle_watts,
            max_watts=self.max_watts,
            embodied_kilograms=self.embodied_kilograms,
            embodied_scope=self.embodied_scope,
            notes=self.notes,
        )

    def _peak(self, cpu: CpuIdentity, cores: float) -> dict[str, Figure]:
        cycle = fp32_flops_per_cycle(cpu.flags, avx512_units=self.avx512_units)
        if self.flops_per_cycle is not None:
            cycle = int(self.flops_per_cycle.value), self.flops_per_cycle.source
        clock = cpu.clock_hz
        if clock is None:
            return {}
        per_cycle = {precision: (flops, AMX_SOURCE) for precision, flops in amx_flops_per_cycle(cpu.flags).items()}
        if cycle is not None:
            per_cycle["fp32"] = cycle
        return {
            precision: Figure(
                cores * clock * flops,
                f"{cores:g} cores x {clock / 1e9:.3g} GHz (clock reported) x {flops} FLOPs per cycle ({why})",
            )
            for precision, (flops, why) in per_cycle.items()
        }


def _times(figure: Figure, threads: int) -> Figure:
    return Figure(figure.value * threads, f"{threads} vCPU x {figure.value:g}: {figure.source}")


@cache
def _table() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("catalogue.yaml").read_text(encoding="utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


def _figure(entry: Mapping[str, Any], key: str, scale: float = 1.0) -> Figure | None:
    if key not in entry:
        return None
    value, source = entry[key]
    return Figure(float(value) * scale, _table()["sources"].get(source, source))


@cache
def catalogue() -> Mapping[str, Device]:
    """Every accelerator by name."""
    devices = {}
    for name, entry in _table()["devices"].items():
        peaks = {precision: _figure(entry["tflops"], precision, 1e12) for precision in entry["tflops"]}
        devices[name] = Device(
            name=name,
            kind=entry["kind"],
            peak_flops=MappingProxyType({precision: peak for precision, peak in peaks.items() if peak}),
            bandwidth_bytes_per_second=_figure(entry, "gb_per_second", 1e9),
            memory_bytes=_figure(entry, "gb", 1e9),
            idle_watts=_figure(entry, "idle_watts"),
            max_watts=_figure(entry, "max_watts"),
            die_area_mm2=_figure(entry, "die_area_mm2"),
            process_nm=_figure(entry, "process_nm"),
            memory_kind=entry.get("memory_kind"),
            embodied_kilograms=_figure(entry, "embodied_kilograms"),
            embodied_scope=entry.get("embodied_scope"),
            notes=tuple(entry.get("notes", ())),
        )
    return MappingProxyType(devices)


@cache
def cpu_models() -> Mapping[str, CpuModel]:
    """Every CPU generation by name."""
    return MappingProxyType({name: _cpu_model(name, entry) for name, entry in _table()["cpus"].items()})


def _cpu_model(name: str, entry: Mapping[str, Any]) -> CpuModel:
    idle, full = _figure(entry, "idle_watts"), _figure(entry, "max_watts")
    assert idle is not None
    assert full is not None
    return CpuModel(
        name,
        idle,
        full,
        _figure(entry, "embodied_kilograms"),
        entry.get("embodied_scope"),
        int(entry.get("avx512_units", 1)),
        _figure(entry, "flops_per_cycle"),
        tuple(entry.get("notes", ())),
    )


def cpu_model_of(cpu: CpuIdentity) -> CpuModel | None:
    """The catalogue's generation of this CPU, None where it is not listed."""
    for name, entry in _table()["cpus"].items():
        for vendor, family, model, *steppings in entry["ids"]:
            first, last = steppings or (0, 1 << 31)
            if (vendor, family, model) == (cpu.vendor, cpu.family, cpu.model) and first <= cpu.stepping <= last:
                return cpu_models()[name]
    return None


def median_cpu(name: str) -> CpuModel:
    """Median watts for an x86 CPU that the catalogue does not list, under the name given."""
    notes = ("This CPU is not in the catalogue: median watts of its listed generations.",)
    return _cpu_model(name, {**_table()["median_cpu"], "notes": notes})


def memory_watts_per_gb() -> Figure:
    """Power of a host's DRAM per GB installed."""
    figure = _figure(_table(), "memory_watts_per_gb")
    assert figure is not None
    return figure


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.casefold().replace("nvidia", ""))


@cache
def _names() -> Mapping[str, str]:
    names: dict[str, str] = {}
    for name, entry in _table()["devices"].items():
        for known in (name, *entry.get("aliases", ()), *entry.get("nvml", ())):
            names.setdefault(_fold(known), name)
    return names


def find_device(name: str) -> Device:
    """An accelerator by its name, an alias or its NVML name, in any case and spacing; or one vCPU of a CPU generation.

    >>> find_device("h100-sxm5").peak_for("bfloat16").value
    989500000000000.0

    Raises:
        UnknownDevice: with the nearest names.
    """
    found = _names().get(_fold(name))
    if found is not None:
        return catalogue()[found]
    for cpu in cpu_models().values():
        if _fold(name) in (_fold(cpu.name), _fold(cpu.name.split(maxsplit=1)[1])):
            return cpu.per_vcpu()
    raise UnknownDevice(f"the catalogue has no device {name!r}{nearest(name, [*catalogue(), *cpu_models()])}")


def device_by_nvml_name(name: str) -> Device | None:
    """The catalogue's device for a name that NVML gives; None rather than the nearest guess."""
    for device, entry in _table()["devices"].items():
        if name in entry.get("nvml", ()):
            return catalogue()[device]
    return None
