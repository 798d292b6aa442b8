"""Ray writes its series into the folder of ours; they are not ours to export."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from serving.placement.scrape import scraper

WRITES = """
from prometheus_client import Counter, Histogram
Counter("ray_serve_requests", "Ray's").inc()
Histogram("ray_wait_seconds", "Ray's").observe(1)
Counter("wattgate_requests_total", "ours").inc(2)
Counter("vllm:prompt_tokens", "the engine's").inc(3)
"""


def test_rays_series_are_left_out_and_the_engines_stay(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", WRITES], env=environment, check=True, timeout=60)
    text = scraper(str(tmp_path))()[0].decode()
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert sorted(samples) == ["vllm:prompt_tokens_total 3.0", "wattgate_requests_total 2.0"]


class Own:
    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("wattgate_own", "Of no process.", value=5)


def test_what_is_no_processs_is_on_the_page_too(tmp_path: Path) -> None:
    scrape = scraper(str(tmp_path), Own())
    assert "\nwattgate_own 5.0\n" in scrape()[0].decode()
    assert scrape() == scrape()
