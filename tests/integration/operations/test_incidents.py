"""Alerts of the real Prometheus over a gateway to which something happens. Their waiting time is shortened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.operations.load import mixed
from tests.integration.operations.prometheus_process import PrometheusProcess
from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = [pytest.mark.ray, pytest.mark.redis]

TRACE = """time,grams_per_kwh
2020-01-01T00:00:00+00:00,50
2020-01-01T01:00:00+00:00,60
"""


@pytest.mark.long
def test_a_source_of_intensity_that_went_is_told_and_the_grams_go_on(tmp_path: Path) -> None:
    """A trace that has ended stands for a source that answers no more: the annual mean stands in."""
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    file = tmp_path / "gateway.yaml"
    file.write_text(
        f"engine: {{kind: simulated}}\nserver: {{port: 0}}\n"
        f"metering: {{zone: FRA, intensity: {{source: trace, trace: {trace}}}}}\n"
    )
    gateway = GatewayProcess("--config", str(file)).wait_ready()
    prometheus = PrometheusProcess(gateway.url, tmp_path, hold="2s")
    try:
        list(mixed(gateway.url, 12))
        until(lambda: "WattgateIntensityStale" in prometheus.firing(), 60, "the alert")
        assert prometheus.firing() == {"WattgateIntensityStale"}
        (alert,) = prometheus.api("alerts")["alerts"]
        assert "in place of" in alert["labels"]["source"]
        until(lambda: prometheus.query("sum(wattgate_request_grams_total) > 0"), what="grams, all the same")
    finally:
        prometheus.stop()
        gateway.stop()


@pytest.mark.long
def test_a_gateway_that_was_killed_is_told(tmp_path: Path) -> None:
    gateway = GatewayProcess("--engine", "simulated", "--port", "0").wait_ready()
    prometheus = PrometheusProcess(gateway.url, tmp_path, hold="2s")
    try:
        until(lambda: prometheus.query('up{job="wattgate"} == 1'), what="the first scrape")
        assert prometheus.firing() == set()
        gateway.stop(9)
        until(lambda: "WattgateDown" in prometheus.firing(), 60, "the alert")
    finally:
        prometheus.stop()
        gateway.stop()
