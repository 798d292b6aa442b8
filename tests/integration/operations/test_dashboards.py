"""Every panel's query returns data against the real Prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.operations.prometheus_process import PrometheusProcess
from tests.integration.serving.gateway_process import until

pytestmark = [pytest.mark.ray, pytest.mark.redis]

GRAFANA = Path(__file__).parents[3] / "deploy" / "grafana"


def queries() -> Iterator[object]:
    for path in sorted(GRAFANA.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield pytest.param(target["expr"], id=f"{path.stem}: {panel['title']} {target['refId']}")


@pytest.mark.parametrize("expression", list(queries()))
def test_a_panels_query_has_data(prometheus: PrometheusProcess, expression: str) -> None:
    filled = expression.replace("$model", ".*").replace("$__rate_interval", "1m")
    assert "$" not in filled
    until(lambda: prometheus.query(filled), timeout_seconds=10, what=f"data of {filled}")


@pytest.mark.parametrize("path", sorted(GRAFANA.glob("*.json")), ids=lambda path: path.stem)
def test_annotations_and_variables_are_queries_that_prometheus_takes(prometheus: PrometheusProcess, path: Path) -> None:
    board = json.loads(path.read_text())
    for annotation in board["annotations"]["list"]:
        prometheus.api("query", query=annotation["expr"])
    assert prometheus.api("label/model/values", **{"match[]": "wattgate_engine_ready"}) == ["simulated-1b"]
