"""Energy counters of an exporter that runs already, DCGM or Kepler, read as Prometheus text.

For an upstream engine on another machine, or where only the exporter may touch the devices. An exporter collects at
its own pace (DCGM every 30 s by default): a counter that did not move since the last reading is not "no joules" but
no news, so choose windows longer than the exporter's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

from metering.power.base import Boundary, Component, ComponentReading, PowerUnavailable, Reading
from metering.power.epochs import EpochCounter
from metering.work import Method

DCGM_ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
"""Millijoules since boot, by UUID; with MIG repeated for every slice (NVIDIA DCGM field 156). The parser appends
``_total`` to a sample that is declared a counter."""
KEPLER_CPU = "kepler_node_cpu_joules_total"
"""Joules by ``zone`` (package, core, dram, uncore, psys) and ``path``; Kepler 0.10 and later."""
KEPLER_OLD = {"kepler_node_package_joules_total": "package", "kepler_node_dram_joules_total": "dram"}
"""Joules by ``package`` and ``mode`` (dynamic, idle); Kepler before 0.10."""
Fetch = Callable[[], str]
Joules = Mapping[Component, int]
"""Nanojoules by component."""


def http_fetch(url: str, timeout_seconds: float = 2.0) -> Fetch:
    """Gets an exporter's page; for a thread, since it waits."""

    def fetch() -> str:
        try:
            return httpx.get(url, timeout=timeout_seconds).raise_for_status().text
        except httpx.HTTPError as error:
            raise PowerUnavailable(f"exporter {url}: {error or type(error).__name__}") from None

    return fetch


def dcgm_energy(devices: Collection[str] | None = None) -> Callable[[str], dict[Component, int]]:
    """Reader of DCGM's page: each GPU once by UUID, whatever slices repeat it; ``devices`` are UUIDs (None: all)."""

    def read(text: str) -> dict[Component, int]:
        out: dict[Component, int] = {}
        for name, labels, value in samples(text):
            uuid = labels.get("UUID", "")
            if name.removesuffix("_total") == DCGM_ENERGY and uuid and (devices is None or uuid in devices):
                component = Component(uuid, Boundary.ACCELERATOR)
                out[component] = max(out.get(component, 0), round(value * 1e6))
        return out

    return read


def kepler_energy(component: Component) -> Callable[[str], dict[Component, int]]:
    """Reader of Kepler's page: packages and DRAM of the node, summed into one component (mostly the host)."""

    def read(text: str) -> dict[Component, int]:
        total, found = 0, False
        for name, labels, value in samples(text):
            zone = labels.get("zone", "") if name == KEPLER_CPU else KEPLER_OLD.get(name, "")
            if zone.startswith("package") or zone == "dram":
                total, found = total + round(value * 1e9), True
        return {component: total} if found else {}

    return read


@dataclass(slots=True)
class _Followed:
    counter: EpochCounter = field(default_factory=EpochCounter)
    last: int | None = None


class ExporterMeter:
    """Meters what ``read`` finds on the fetched page.

    Raises:
        PowerUnavailable: the page cannot be fetched or parsed, or has no energy counter.
    """

    method = Method.MEASURED

    def __init__(
        self,
        fetch: Fetch,
        read: Callable[[str], dict[Component, int]],
        *,
        name: str,
        idle_watts: Mapping[str, float] | None = None,
    ) -> None:
        self.name = name
        self._fetch = fetch
        self._read = read
        self._idle = dict(idle_watts or {})
        self._followed = {component: _Followed() for component in self._energies()}
        if not self._followed:
            raise PowerUnavailable(f"{name}: its page has no energy counter; enable it in the exporter")

    @property
    def components(self) -> tuple[Component, ...]:
        return tuple(self._followed)

    def read(self, now_seconds: float) -> Reading:
        """A counter that did not move is missing, as is one that is gone."""
        energies = self._energies()
        components: dict[str, ComponentReading] = {}
        missing: dict[str, str] = {}
        for component, followed in self._followed.items():
            nanojoules = energies.get(component)
            if nanojoules is None:
                missing[component.name] = f"{self.name} no longer shows it"
            elif nanojoules == followed.last:
                missing[component.name] = f"{self.name} has collected nothing new: make the windows longer"
            else:
                followed.last = nanojoules
                components[component.name] = ComponentReading(
                    followed.counter.follow(nanojoules), self._idle.get(component.name), followed.counter.epoch
                )
        return Reading(now_seconds, components, missing)

    def close(self) -> None:
        return None

    def _energies(self) -> dict[Component, int]:
        try:
            return self._read(self._fetch())
        except ValueError as error:
            raise PowerUnavailable(f"{self.name}: its page is not Prometheus text ({error})") from None


def samples(text: str) -> Iterable[tuple[str, Mapping[str, str], float]]:
    """Name, labels and value of each sample of a page."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, float(sample.value)
