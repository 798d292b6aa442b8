from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import StartShared
from tests.integration.operations.load import mixed
from tests.integration.operations.prometheus_process import PrometheusProcess
from tests.integration.serving.gateway_process import GatewayProcess, until
from tests.system_packages import program


@pytest.fixture(scope="session")
def watched_gateway(start_shared: StartShared, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    config = tmp_path_factory.mktemp("gateway") / "gateway.yaml"
    config.write_text(
        "metering: {price_per_kwh: 0.2, price_per_device_hour: 1.5}\n"
        "control: {mode: dry_run, slo: [ttft_p95<=5s, itl_p95<=500ms], window_seconds: 1}\n"
    )
    return start_shared("--engine", "simulated", "--port", "0", "--config", str(config))


@pytest.fixture(scope="session")
def gateway(watched_gateway: GatewayProcess) -> GatewayProcess:
    return watched_gateway


@pytest.fixture(scope="session")
def prometheus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusProcess]:
    """Has watched the gateway before, during and after a load of all kinds."""
    program("prometheus")
    gateway: GatewayProcess = request.getfixturevalue("gateway")
    list(mixed(gateway.url, 12))
    prometheus = PrometheusProcess(gateway.url, tmp_path_factory.mktemp("prometheus"))
    until(lambda: prometheus.query('up{job="wattgate"} == 1'), what="the first scrape")
    outcomes = list(mixed(gateway.url))
    assert {"MISS", "HIT-EXACT", "BYPASS", "400"} <= set(outcomes), outcomes
    until(lambda: prometheus.query("sum(rate(wattgate_request_grams_total[1m])) > 0"), what="booked carbon")
    until(lambda: prometheus.query("wattgate:cache_hit:ratio_rate5m > 0"), what="recorded rules")
    yield prometheus
    prometheus.stop()
