"""Every panel's query returns data against the real Prometheus, from a gateway that does what the panels show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.operations.load import mixed, paraphrased
from tests.integration.operations.prometheus_process import PrometheusProcess
from tests.integration.serving.gateway_process import GatewayProcess, until
from tests.system_packages import program

pytestmark = [pytest.mark.ray, pytest.mark.redis]

GRAFANA = Path(__file__).parents[3] / "deploy" / "grafana"


NOT_DONE_HERE = {
    "serving: Waking up A": "this engine never sleeps: an engine's loading is tested where there is a real one",
    "cache: Errors of comparing answers A": "drawn by chance among the verifications",
}
"""Panels that are rightly empty here."""
OWN_SERIES = ("Judgements of semantic neighbours", "Shadow verifications")
"""Panels with a zero for a gateway without their feature; here they have series."""


@pytest.fixture(scope="module")
def busy_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusProcess]:
    """Has watched a gateway whose semantic hits are verified, under a load of all kinds."""
    program("prometheus")
    config = tmp_path_factory.mktemp("gateway") / "gateway.yaml"
    config.write_text(
        "metering: {price_per_kwh: 0.2, price_per_device_hour: 1.5}\n"
        "control: {mode: dry_run, slo: [ttft_p95<=5s, itl_p95<=500ms], window_seconds: 1}\n"
        "cache: {tier: semantic, max_wrong: 0.05, shadow_share: 1.0, policy: threshold, score_threshold: 0.5}\n"
    )
    gateway = GatewayProcess("--engine", "simulated", "--port", "0", "--config", str(config)).wait_ready()
    try:
        # a series that begins with its first value has no rate: what is counted, is counted before and after
        list(mixed(gateway.url, 12))
        assert "HIT-SEMANTIC" in set(paraphrased(gateway.url))
        watching = PrometheusProcess(gateway.url, tmp_path_factory.mktemp("prometheus"))
        try:
            until(lambda: watching.query('up{job="wattgate"} == 1'), what="the first scrape")
            assert {"MISS", "HIT-EXACT", "BYPASS", "400"} <= set(mixed(gateway.url))
            list(paraphrased(gateway.url))
            until(lambda: watching.query("sum(rate(wattgate_request_grams_total[1m])) > 0"), what="booked carbon")
            until(lambda: watching.query("wattgate:cache_hit:ratio_rate5m > 0"), what="recorded rules")
            yield watching
        finally:
            watching.stop()
    finally:
        gateway.stop()


def queries() -> Iterator[Any]:
    for path in sorted(GRAFANA.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield pytest.param(target["expr"], id=f"{path.stem}: {panel['title']} {target['refId']}")


@pytest.mark.parametrize("expression", list(queries()))
def test_a_panels_query_has_data(
    busy_prometheus: PrometheusProcess, expression: str, request: pytest.FixtureRequest
) -> None:
    filled = expression.replace("$model", ".*").replace("$__rate_interval", "1m")
    assert "$" not in filled
    name = request.node.callspec.id
    if name in NOT_DONE_HERE:
        busy_prometheus.query(filled)
        return
    if any(title in name for title in OWN_SERIES):
        filled = filled.removesuffix(" or vector(0)")
    until(lambda: busy_prometheus.query(filled), what=f"data of {filled}")


def test_what_is_exempt_is_there() -> None:
    names = [str(parameters.id) for parameters in queries()]
    assert set(NOT_DONE_HERE) <= set(names)
    assert all(any(title in name for name in names) for title in OWN_SERIES)


@pytest.mark.parametrize("path", sorted(GRAFANA.glob("*.json")), ids=lambda path: path.stem)
def test_annotations_and_variables_are_queries_that_prometheus_takes(prometheus: PrometheusProcess, path: Path) -> None:
    board = json.loads(path.read_text())
    for annotation in board["annotations"]["list"]:
        prometheus.api("query", query=annotation["expr"])
    assert prometheus.api("label/model/values", **{"match[]": "wattgate_engine_ready"}) == ["simulated-1b"]
