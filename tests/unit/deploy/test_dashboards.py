from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.metrics import CATALOGUE
from tests.unit.deploy.test_prometheus_rules import LABELS, metrics_of

GRAFANA = Path(__file__).parents[3] / "deploy" / "grafana"
CODE = runpy.run_path(str(GRAFANA / "dashboards.py"))
NAMES = ["cache", "carbon", "serving", "tuning"]


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in json.loads((GRAFANA / f"{name}.json").read_text())["panels"] if panel["type"] != "row"]


def expressions(name: str) -> list[str]:
    return [target["expr"] for panel in panels(name) for target in panel["targets"]]


def test_the_json_is_what_the_code_makes() -> None:
    made = {path.name: content for path, content in CODE["files"]()}
    assert sorted(made) == sorted(path.name for path in GRAFANA.glob("*.json")) == [f"{name}.json" for name in NAMES]
    for name, content in made.items():
        assert (GRAFANA / name).read_text() == content, f"{name} is stale: run deploy/grafana/dashboards.py"


@pytest.mark.parametrize("name", NAMES)
def test_panels_read_only_what_is_exported_or_recorded(name: str) -> None:
    groups = yaml.safe_load((GRAFANA.parent / "prometheus" / "recording.yaml").read_text())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"]}
    for expression in expressions(name):
        for metric, labels in metrics_of(expression):
            assert metric in LABELS, f"{metric} is not in the catalogue"
            assert labels <= LABELS[metric], f"{metric} has no label {labels - LABELS[metric]}"
        assert set(re.findall(r"\b(?:model|wattgate):[\w:]+", expression)) <= recorded


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_a_title_a_unit_and_a_place_of_their_own(name: str) -> None:
    places = set()
    for panel in panels(name):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        places.add((panel["gridPos"]["x"], panel["gridPos"]["y"]))
    assert len(places) == len(panels(name)) == len({panel["title"] for panel in panels(name)})


@pytest.mark.parametrize("name", NAMES)
def test_annotations_say_what_happened_from_labels_that_their_series_have(name: str) -> None:
    """Grafana fills ``{{label}}`` in from the series; a label that is not there stays empty in the hover."""
    annotations = json.loads((GRAFANA / f"{name}.json").read_text())["annotations"]["list"]
    assert [annotation["name"] for annotation in annotations] == ["Events", "Engine died", "Alerts"]
    for annotation in annotations:
        grouped = re.search(r"by \(([^)]*)\)", annotation["expr"])
        alerts = {"alertname", "alertstate", "severity", "model", "instance"}
        labels = set(grouped[1].split(", ")) if grouped else alerts
        told = set(re.findall(r"\{\{(\w+)\}\}", annotation["titleFormat"] + annotation["textFormat"]))
        assert told, f"{annotation['name']} does not say what happened"
        assert told | set(annotation["tagKeys"].split(",")) <= labels
        for metric, _ in metrics_of(annotation["expr"]):
            assert metric in LABELS
            assert not grouped or labels <= LABELS[metric]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_unknown_is_not_drawn_as_zero(name: str) -> None:
    """Nothing counted is zero; a ratio, a mean or a bound that nobody measured is not."""
    for expression in expressions(name):
        if expression.endswith("or vector(0)"):
            assert not re.search(r"_ratio\b|_seconds_sum\b|_cost_total\b", expression), expression


def test_an_event_stands_where_it_happened_with_its_text() -> None:
    events = json.loads((GRAFANA / "serving.json").read_text())["annotations"]["list"][0]
    assert events["textFormat"] == "{{text}}"
    assert events["useValueForTime"] is True
    assert events["expr"].startswith("1000 * "), "Grafana takes milliseconds"


def test_what_is_exported_is_shown_somewhere() -> None:
    shown = {metric for name in NAMES for expression in expressions(name) for metric, _ in metrics_of(expression)}
    for name in NAMES:
        annotations = json.loads((GRAFANA / f"{name}.json").read_text())["annotations"]["list"]
        shown |= {metric for annotation in annotations for metric, _ in metrics_of(annotation["expr"])}
    recording = (GRAFANA.parent / "prometheus" / "recording.yaml").read_text()
    shown |= {metric for metric, _ in metrics_of(recording)}
    alerts = (GRAFANA.parent / "prometheus" / "alerts.yaml").read_text()
    unseen = {spec.name for spec in CATALOGUE} - shown - {metric for metric, _ in metrics_of(alerts)}
    assert len(unseen) <= 0.15 * len(CATALOGUE), f"on no dashboard and in no rule: {sorted(unseen)}"
