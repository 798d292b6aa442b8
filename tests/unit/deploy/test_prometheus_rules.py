from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from serving.metrics import CATALOGUE
from serving.placement import node_actor

DEPLOY = Path(__file__).parents[3] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RULE_FILES = [PROMETHEUS / "recording.yaml", PROMETHEUS / "alerts.yaml"]
LABELS = {spec.name: {*spec.labels, "instance", "job", "le"} for spec in CATALOGUE}


def rules() -> list[dict[str, object]]:
    return [
        rule for file in RULE_FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
    ]


def alerts() -> list[dict[str, object]]:
    return [rule for rule in rules() if "alert" in rule]


def metrics_of(expression: str) -> list[tuple[str, set[str]]]:
    """Every exported metric an expression reads, with the labels it selects on; recorded series are left out."""
    found = re.findall(r"(?<![:\w])(wattgate_\w+)(?:\{([^}]*)\})?", expression)
    return [
        (re.sub(r"_(bucket|count|sum)$", "", name), set(re.findall(r"(\w+)\s*[=!]", labels))) for name, labels in found
    ]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_read_only_what_the_gateway_exports(rule: dict[str, str]) -> None:
    for name, labels in metrics_of(rule["expr"]):
        assert name in LABELS, f"{name} is not in the catalogue"
        assert labels <= LABELS[name], f"{name} has no label {labels - LABELS[name]}"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_read_only_recorded_series_that_exist(rule: dict[str, str]) -> None:
    recorded = {other["record"] for other in rules() if "record" in other}
    read = set(re.findall(r"\b(?:model:)?wattgate\w*:[\w:]+|\bmodel:[\w:]+", rule["expr"]))
    assert read <= recorded


def test_each_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() -> None:
    sections = set(re.findall(r"^## (\w+)$", (DEPLOY / "runbook.md").read_text(), re.M))
    assert sections == {alert["alert"] for alert in alerts()}
    for alert in alerts():
        assert alert["annotations"]["runbook"] == f"runbook.md#{alert['alert'].lower()}"  # type: ignore[index]
        assert alert["labels"]["severity"] in {"page", "ticket"}  # type: ignore[index]


def test_faults_that_the_node_s_meter_tells_of_itself_are_in_the_runbook() -> None:
    told = re.findall(r'fault\("(meter_\w+)"\)', Path(node_actor.__file__).read_text())
    section = (DEPLOY / "runbook.md").read_text().split("## WattgateMeterFaults")[1].split("\n## ")[0]
    assert told
    assert [fault for fault in told if f"`{fault}`" not in section] == []


def test_links_within_the_runbook_lead_somewhere() -> None:
    text = (DEPLOY / "runbook.md").read_text()
    anchors = {title.lower() for title in re.findall(r"^## (\w+)$", text, re.M)}
    assert set(re.findall(r"\]\(#(\w+)\)", text)) <= anchors


def test_every_alert_fires_in_an_incident_of_its_own() -> None:
    incidents = (PROMETHEUS / "tests" / "incidents.yaml").read_text()
    assert {alert["alert"] for alert in alerts()} <= set(re.findall(r'alertname="(\w+)"', incidents))
