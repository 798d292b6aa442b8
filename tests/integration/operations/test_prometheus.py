"""Debian's Prometheus scrapes a gateway that works."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import pytest
import yaml

from tests.integration.operations.prometheus_process import DEPLOYED, PrometheusProcess
from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = [pytest.mark.ray, pytest.mark.redis]


def recorded() -> list[str]:
    groups = yaml.safe_load((DEPLOYED / "recording.yaml").read_text())["groups"]
    return [rule["record"] for group in groups for rule in group["rules"]]


def test_the_gateway_is_found_by_service_discovery(gateway: GatewayProcess, prometheus: PrometheusProcess) -> None:
    (target,) = prometheus.api("targets")["activeTargets"]
    assert target["scrapeUrl"] == f"{gateway.url}/metrics"
    assert target["health"] == "up", target["lastError"]
    assert target["discoveredLabels"]["__metrics_path__"] == "/metrics"


@pytest.mark.parametrize("name", recorded())
def test_every_recorded_series_has_data(prometheus: PrometheusProcess, name: str) -> None:
    until(lambda: prometheus.query(name), what=f"data of {name}")


def test_all_rules_evaluate_and_no_alert_fires_under_ordinary_load(prometheus: PrometheusProcess) -> None:
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 40
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    assert [alert for alert in prometheus.api("alerts")["alerts"] if alert["state"] == "firing"] == []


def test_prometheus_and_the_gateway_agree(gateway: GatewayProcess, prometheus: PrometheusProcess) -> None:
    requests = gateway.metric("wattgate_requests_total")
    until(
        lambda: [float(s["value"][1]) for s in prometheus.query("sum(wattgate_requests_total)")] == [requests],
        what="the same number of requests",
    )


def test_what_is_exposed_has_types_that_prometheus_reads(
    gateway: GatewayProcess, prometheus: PrometheusProcess
) -> None:
    metadata = prometheus.api("metadata")
    assert metadata["wattgate_request_grams_total"][0]["type"] == "counter"
    assert metadata["wattgate_mfu_ratio"][0]["type"] == "gauge"
    assert metadata["wattgate_request_seconds"][0]["type"] == "histogram"
    assert httpx.get(f"{gateway.url}/metrics/targets").json()[0]["targets"] == [gateway.url.removeprefix("http://")]


def test_a_report_out_of_prometheus_is_what_the_gateway_counted(
    gateway: GatewayProcess, prometheus: PrometheusProcess
) -> None:
    joules = until(lambda: settled(gateway, "wattgate_request_joules_total"), what="books that no window changes")
    until(
        lambda: sum(float(s["value"][1]) for s in prometheus.query("wattgate_request_joules_total")) >= joules,
        what="the last scrape",
    )
    command = [sys.executable, "-c", "from serving.cli import main; main()", "report", "--prometheus", prometheus.url]
    done = subprocess.run([*command, "--since", "1h", "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (total,) = json.loads(done.stdout)["totals"]
    assert total["method"] == "simulated"
    counted = gateway.metric
    assert total["requests"] == counted("wattgate_requests_total", model="simulated-1b")
    assert total["energy_kwh"]["total"] * 3.6e6 == pytest.approx(joules, rel=1e-6)
    grams = counted("wattgate_request_grams_total", scope="operational")
    assert total["grams"]["operational"] == pytest.approx(grams, rel=1e-6)
    possible = counted("wattgate_possible_flops_total")
    assert total["mfu_ratio"] == pytest.approx(counted("wattgate_flops_total") / possible, rel=1e-6)
    assert total["savings"] is not None
    assert total["sources"][0].startswith("IEA")


def settled(gateway: GatewayProcess, name: str) -> float | None:
    """A counter's value, once it has stood still while windows of a second went by."""
    before = gateway.metric(name)
    windows = gateway.metric("wattgate_energy_joules_total")
    until(lambda: gateway.metric("wattgate_energy_joules_total") > windows, what="a window")
    return before if gateway.metric(name) == before else None
