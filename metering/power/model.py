"""Power models for what nothing can read. Each is a named choice; two of them are never mixed in one series.

``idle_aware``  P = idle + (max - idle) x utilisation
``busy``        P = idle + (max - idle) x a utilisation that was fitted, while anything runs
``nameplate``   E = W x MFU x seconds x N, W the maximal watts of a unit: the formula of Faiz et al. 2024
                (LLMCarbon); without idle, so a device without work costs nothing
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import psutil

from metering.power.base import Boundary, Component, ComponentReading, Load, PowerUnavailable, Reading
from metering.work import Method

DRAM_WATTS_PER_GB = 0.392
"""Cloud Carbon Footprint (Apache-2.0), memory coefficient."""


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Cumulative seconds of one core."""

    busy_seconds: float
    total_seconds: float


Sampler = Callable[[], Sequence[CoreTimes]]


def psutil_core_times() -> list[CoreTimes]:
    """Core times from the operating system; waiting for I/O is not busy, guest time is in user time already."""
    out = []
    for times in psutil.cpu_times(percpu=True):
        fields = times._asdict()
        total = sum(fields.values()) - fields.get("guest", 0.0) - fields.get("guest_nice", 0.0)
        out.append(CoreTimes(total - fields["idle"] - fields.get("iowait", 0.0), total))
    return out


class CpuPowerModel:
    """Idle-aware model of a CPU: the engine's cores are the accelerator, the other cores and the DRAM the host.

    Args:
        engine_cores: indices of the cores (vCPUs) that the engine is bound to; none (a GPU engine): all is host.
        idle_watts_per_core, max_watts_per_core: of one vCPU, from the hardware catalogue.
        memory_gb: memory of the machine in GB (1e9 bytes).
        sampler: cumulative core times, index by core.

    Raises:
        PowerUnavailable: the watts are unknown, or a core is not there.
    """

    name = "idle_aware"
    method = Method.MODELLED

    def __init__(
        self,
        engine_cores: Collection[int],
        *,
        idle_watts_per_core: float | None,
        max_watts_per_core: float | None,
        memory_gb: float,
        sampler: Sampler = psutil_core_times,
        accelerator: str = "cpu",
        host: str = "host",
    ) -> None:
        if idle_watts_per_core is None or max_watts_per_core is None:
            raise PowerUnavailable(
                "the idle and maximal watts of this CPU are unknown: configure both per vCPU to model its power"
            )
        if not 0 <= idle_watts_per_core <= max_watts_per_core:
            raise PowerUnavailable(
                f"watts per vCPU must be 0 <= idle <= max, got {idle_watts_per_core} and {max_watts_per_core}"
            )
        self._sampler = sampler
        times = list(sampler())
        self._engine = frozenset(engine_cores)
        absent = sorted(core for core in self._engine if not 0 <= core < len(times))
        if absent:
            raise PowerUnavailable(f"engine cores {absent} of {len(times)}: name cores of this machine, from 0")
        self._idle_core, self._max_core = idle_watts_per_core, max_watts_per_core
        self._dram_watts = DRAM_WATTS_PER_GB * memory_gb
        self._accelerator = Component(accelerator, Boundary.ACCELERATOR)
        self._host = Component(host, Boundary.HOST)
        self._totals = {accelerator: 0, host: 0}
        self._idle_watts = {
            accelerator: idle_watts_per_core * len(self._engine),
            host: idle_watts_per_core * (len(times) - len(self._engine)) + self._dram_watts,
        }
        self._times = times
        self._at: float | None = None

    @property
    def components(self) -> tuple[Component, ...]:
        return (self._accelerator, self._host) if self._engine else (self._host,)

    def read(self, now_seconds: float) -> Reading:
        """Adds watts x time since the last read, at each core's busy share over that time."""
        times = list(self._sampler())
        if len(times) != len(self._times):
            self._times, self._at = times, now_seconds
            raise PowerUnavailable("the number of cores changed since the last reading")
        elapsed = 0.0 if self._at is None else max(0.0, now_seconds - self._at)
        joules = {self._accelerator.name: 0.0, self._host.name: self._dram_watts * elapsed}
        for core, (before, after) in enumerate(zip(self._times, times, strict=True)):
            share = busy_share(before, after)
            watts = self._idle_core + (self._max_core - self._idle_core) * share
            name = self._accelerator.name if core in self._engine else self._host.name
            joules[name] += watts * elapsed
        for name, drawn in joules.items():
            self._totals[name] += round(drawn * 1e9)
        self._times, self._at = times, now_seconds
        return Reading(now_seconds, self._readings())

    def memory(self) -> tuple[list[CoreTimes], float | None, dict[str, int]]:
        return list(self._times), self._at, dict(self._totals)

    def recall(self, memory: tuple[list[CoreTimes], float | None, dict[str, int]]) -> None:
        """The system's core times go on: the time since is modelled from the cores' mean busy share over it."""
        self._times, self._at, totals = memory
        self._totals |= totals

    def close(self) -> None:
        return None

    def _readings(self) -> Mapping[str, ComponentReading]:
        return {c.name: ComponentReading(self._totals[c.name], self._idle_watts[c.name]) for c in self.components}


def busy_share(before: CoreTimes, after: CoreTimes) -> float:
    """Busy share of a core between two samples, 0..1; nothing where its clock did not move."""
    total = after.total_seconds - before.total_seconds
    if total <= 0:
        return 0.0
    return min(1.0, max(0.0, (after.busy_seconds - before.busy_seconds) / total))


@dataclass(frozen=True, slots=True)
class IdleAwarePower:
    """P = idle + (max - idle) x max(MFU, MBU): a GPU that nothing can read, or a simulated device."""

    component: Component
    idle_watts: float | None
    """Of the whole component."""
    max_watts: float
    method: Method = Method.MODELLED
    name: str = "idle_aware"

    def __post_init__(self) -> None:
        if self.idle_watts is None:
            raise PowerUnavailable(
                f"idle watts of {self.component.name} are unknown: configure them to model its power"
            )
        if not 0 <= self.idle_watts <= self.max_watts:
            raise PowerUnavailable(f"watts of {self.component.name} must be 0 <= idle <= max")

    def energy_nanojoules(self, load: Load) -> int | None:
        utilisation = load.utilisation_ratio
        if utilisation is None or self.idle_watts is None:
            return None
        watts = self.idle_watts + (self.max_watts - self.idle_watts) * utilisation
        return round(watts * load.window_seconds * 1e9)


@dataclass(frozen=True, slots=True)
class BusyPower:
    """P = idle + (max - idle) x ``busy_utilisation`` while a step runs, idle otherwise: a fitted engine's power."""

    component: Component
    idle_watts: float | None
    """Of the whole component."""
    max_watts: float
    busy_utilisation: float
    method: Method = Method.MODELLED
    name: str = "busy"

    def __post_init__(self) -> None:
        if self.idle_watts is None or not 0 <= self.idle_watts <= self.max_watts:
            raise PowerUnavailable(f"watts of {self.component.name} must be 0 <= idle <= max")

    def energy_nanojoules(self, load: Load) -> int | None:
        assert self.idle_watts is not None
        busy_watts = (self.max_watts - self.idle_watts) * self.busy_utilisation
        return round((self.idle_watts * load.window_seconds + busy_watts * load.busy_seconds) * 1e9)


@dataclass(frozen=True, slots=True)
class NameplatePower:
    """W x MFU x seconds x N; PUE and intensity are applied by the books, as to any energy."""

    component: Component
    max_watts: float
    count: int = 1
    method: Method = Method.MODELLED
    name: str = "nameplate"
    idle_watts: float | None = 0.0

    def energy_nanojoules(self, load: Load) -> int | None:
        if load.mfu_ratio is None:
            return None
        return round(nameplate_joules(self.max_watts, load.mfu_ratio, load.window_seconds, self.count) * 1e9)


def nameplate_joules(watts: float, mfu_ratio: float, seconds: float, count: int = 1) -> float:
    """W x MFU x s x N (Faiz et al. 2024), before PUE.

    >>> nameplate_joules(700.0, 0.5, 2.0, 8)
    5600.0
    """
    return watts * mfu_ratio * seconds * count


def nameplate_grams(
    watts: float, mfu_ratio: float, seconds: float, count: int, pue: float, grams_per_kwh: float
) -> float:
    """W x MFU x s x N x PUE x IC, IC given per kWh and taken per watt-second."""
    return nameplate_joules(watts, mfu_ratio, seconds, count) * pue * grams_per_kwh / 3.6e6
