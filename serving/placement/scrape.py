"""What ``/metrics`` answers: the series of all of the node's processes, from their shared folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest, multiprocess
from prometheus_client.registry import Collector


class WithoutRay:
    """What a collector has but Ray's own series: they are Ray's to export, with labels of its own."""

    def __init__(self, inner: Collector) -> None:
        self._inner = inner

    def collect(self) -> Iterator[Metric]:
        return (family for family in self._inner.collect() if not family.name.startswith("ray_"))


def scraper(folder: str, *own: Collector) -> Callable[[], tuple[bytes, str]]:
    """The exposition of all of the node's processes, from their shared folder, and of ``own``: what is no process's."""

    def scrape() -> tuple[bytes, str]:
        registry = CollectorRegistry()
        registry.register(WithoutRay(multiprocess.MultiProcessCollector(None, folder)))  # type: ignore[no-untyped-call]
        for collector in own:
            registry.register(collector)
        return generate_latest(registry), CONTENT_TYPE_LATEST

    return scrape
