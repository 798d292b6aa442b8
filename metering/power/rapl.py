"""CPU packages and DRAM by RAPL, as the Linux power capping tree shows it (``/sys/class/powercap``).

``energy_uj`` counts microjoules and wraps at ``max_energy_range_uj``. Only root may read it since Linux 5.10
(CVE-2020-8694), and most virtual machines do not have it. ``core`` and ``uncore`` are parts of the package, ``psys``
contains it and ``intel-rapl-mmio`` repeats it: only packages and their DRAM are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metering.power.base import Boundary, Component, ComponentReading, PowerUnavailable, Reading
from metering.power.owner import DeviceLocks
from metering.work import Method

POWERCAP = Path("/sys/class/powercap")
MOST_PACKAGE_WATTS = 1000.0
"""No package draws more: twice the 500 W of the largest server CPUs of 2024 (AMD EPYC 9965, Intel Xeon 6980P). More
than this between two readings is a counter that started anew, not one that wrapped."""
NANOJOULES_PER_MICROJOULE = 1000


@dataclass(slots=True)
class _Zone:
    path: Path
    dram: bool
    range_microjoules: int
    total_microjoules: int = 0
    last_microjoules: int | None = None
    at_seconds: float = 0.0

    def follow(self, raw: int, now_seconds: float) -> bool:
        """Add what was drawn since the last reading; False where that cannot be known (the counter started anew)."""
        last, at = self.last_microjoules, self.at_seconds
        self.last_microjoules, self.at_seconds = raw, now_seconds
        if last is None:
            return True
        most = MOST_PACKAGE_WATTS * 1e6 * max(now_seconds - at, 1e-3)
        drawn = raw - last if raw >= last else raw + self.range_microjoules - last
        if drawn > most or most >= self.range_microjoules:
            return False
        self.total_microjoules += drawn
        return True


class RaplMeter:
    """Packages and DRAM of the machine, the package shared between the engine's cores and the host.

    RAPL knows no cores: where the engine has some of them, the sum is measured and its division is by their number,
    whatever each did. The name says so: ``rapl_by_cores``.

    Args:
        engine_cores, all_cores: the accelerator boundary gets this share of the packages, by cores reserved; the
            rest and the DRAM are the host. 0 engine cores (a GPU engine): all is host.
        idle_watts: idle watts by component name (``cpu``, ``host``) where known.
        root: of the power capping tree.
        locks: ownership of the packages on this machine; None: not checked.

    Raises:
        PowerUnavailable: no RAPL, no permission to read it, or another owner.
    """

    method = Method.MEASURED

    def __init__(
        self,
        engine_cores: int,
        all_cores: int,
        *,
        idle_watts: Mapping[str, float] | None = None,
        root: Path = POWERCAP,
        locks: DeviceLocks | None = None,
        accelerator: str = "cpu",
        host: str = "host",
    ) -> None:
        if not 0 <= engine_cores <= all_cores or all_cores < 1:
            raise PowerUnavailable(f"{engine_cores} engine cores of {all_cores}: give 0 <= engine cores <= all cores")
        self._share = (engine_cores, all_cores)
        self.name = "rapl" if engine_cores in (0, all_cores) else "rapl_by_cores"
        self._idle = dict(idle_watts or {})
        self._accelerator = Component(accelerator, Boundary.ACCELERATOR)
        self._host = Component(host, Boundary.HOST)
        self._epoch = 0
        self._locks = locks
        self._zones = find_zones(root)
        if not any(not zone.dram for zone in self._zones):
            raise PowerUnavailable(f"no RAPL package under {root}: virtual machines rarely show one")
        for zone in self._zones:
            read_number(zone.path / "energy_uj")
        self._owned = [f"rapl_{zone.path.name}" for zone in self._zones]
        if locks is not None:
            locks.acquire(self._owned)

    @property
    def components(self) -> tuple[Component, ...]:
        return (self._accelerator, self._host) if self._share[0] else (self._host,)

    def read(self, now_seconds: float) -> Reading:
        """All zones or none: a package that cannot be read makes the whole reading fail."""
        raw = [read_number(zone.path / "energy_uj") for zone in self._zones]
        known = [zone.follow(value, now_seconds) for zone, value in zip(self._zones, raw, strict=True)]
        if not all(known):
            self._epoch += 1
        package = sum(zone.total_microjoules for zone in self._zones if not zone.dram) * NANOJOULES_PER_MICROJOULE
        dram = sum(zone.total_microjoules for zone in self._zones if zone.dram) * NANOJOULES_PER_MICROJOULE
        engine = package * self._share[0] // self._share[1]
        totals = {self._accelerator: engine, self._host: package - engine + dram}
        return Reading(
            now_seconds,
            {
                component.name: ComponentReading(totals[component], self._idle.get(component.name), self._epoch)
                for component in self.components
            },
        )

    def memory(self) -> tuple[int, dict[str, tuple[int, int | None, float]]]:
        zones = {
            zone.path.name: (zone.total_microjoules, zone.last_microjoules, zone.at_seconds) for zone in self._zones
        }
        return self._epoch, zones

    def recall(self, memory: tuple[int, Mapping[str, tuple[int, int | None, float]]]) -> None:
        """The counters go on while nobody reads them; where they may have wrapped since, a new epoch begins."""
        self._epoch, zones = memory
        for zone in self._zones:
            if zone.path.name in zones:
                zone.total_microjoules, zone.last_microjoules, zone.at_seconds = zones[zone.path.name]

    def close(self) -> None:
        if self._locks is not None:
            self._locks.release(self._owned)


def find_zones(root: Path) -> list[_Zone]:
    """Packages and DRAM zones, each once."""
    zones = []
    for path in sorted(root.glob("intel-rapl:*")) if root.is_dir() else []:
        try:
            name = (path / "name").read_text().strip()
        except OSError:
            continue
        package = re.fullmatch(r"intel-rapl:\d+", path.name) is not None and name.startswith("package")
        dram = re.fullmatch(r"intel-rapl:\d+:\d+", path.name) is not None and name == "dram"
        if package or dram:
            zones.append(_Zone(path, dram, read_number(path / "max_energy_range_uj")))
    return zones


def read_number(path: Path) -> int:
    """An integer file of the tree.

    Raises:
        PowerUnavailable: not readable, with the mend, or not a number.
    """
    try:
        return int(path.read_text())
    except PermissionError:
        raise PowerUnavailable(
            f"no permission to read {path}: only root may since Linux 5.10; "
            "run the node meter as root or grant read access to the energy_uj files"
        ) from None
    except (OSError, ValueError) as error:
        raise PowerUnavailable(f"cannot read {path}: {error}") from None
