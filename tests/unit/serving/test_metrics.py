from __future__ import annotations

import ast
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import serving
from serving.metrics import CATALOGUE, Metrics, MetricSpec, catalogue_markdown

UNITS = {
    "_seconds": "seconds",
    "_joules_total": "joules",
    "_joules": "joules",
    "_grams_total": "gCO2e",
    "_ratio": "ratio",
    "_watts": "watts",
    "_tokens_total": "tokens",
    "_grams_per_kwh": "g/kWh",
}
BOUNDED = frozenset(
    {"model", "tenant", "endpoint", "status", "cache", "kind", "path", "outcome", "tier", "why", "operation", "fault"}
    | {
        "guard",
        "reason",
        "phase",
        "mode",
        "move",
        "kept",
        "metric",
        "component",
        "boundary",
        "method",
        "source",
        "scope",
        "zone",
        "signal",
        "quality",
    }
    | {"cause", "fallback", "batch", "what", "statistic", "part", "priority"}
)


def used_in_code() -> dict[str, set[int]]:
    """Names given to ``add``, ``set`` or ``put``, ``observe``, with the number of labels; -1 where not countable."""
    found: dict[str, set[int]] = {}
    for file in Path(serving.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            if file.name == "metrics.py":
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called not in ("add", "put", "set", "observe"):
                continue
            name = node.args[0].value
            if isinstance(name, str) and name.startswith("wattgate_"):
                starred = any(isinstance(argument, ast.Starred) for argument in node.args)
                found.setdefault(name, set()).add(-1 if starred else len(node.args) - 2)
    return found


SPECS = {spec.name: spec for spec in CATALOGUE}


def test_each_series_that_the_code_writes_is_declared_with_as_many_labels() -> None:
    used = used_in_code()
    assert len(used) > 10
    for name, counts in used.items():
        if name.startswith("wattgate_") and name in SPECS:
            assert counts <= {-1, len(SPECS[name].labels)}, name
    written = {name for name in used if name.rsplit("_", 1)[-1] in ("total", "seconds", "joules", "ratio", "watts")}
    assert written <= set(SPECS)


def test_each_declared_series_is_written_somewhere() -> None:
    text = "\n".join(
        file.read_text() for file in Path(serving.__file__).parent.rglob("*.py") if file.name != "metrics.py"
    )
    assert [spec.name for spec in CATALOGUE if f'"{spec.name}"' not in text] == []


def test_names_are_unique() -> None:
    assert len(SPECS) == len(CATALOGUE)


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_a_series_is_well_declared(spec: MetricSpec) -> None:
    assert spec.name.startswith("wattgate_")
    assert (spec.kind == "counter") == spec.name.endswith("_total")
    # the texts of the last events only, for an hour: EventSeries bounds their number
    texts = {"text"} if spec.name == "wattgate_event_timestamp_seconds" else set()
    assert set(spec.labels) <= BOUNDED | texts, "labels are bounded sets: never an id, never a client's text"
    assert len(spec.labels) == len(set(spec.labels))
    assert spec.meaning.endswith(".")
    assert "|" not in spec.meaning
    assert bool(spec.buckets) == (spec.kind == "histogram")
    assert list(spec.buckets) == sorted(set(spec.buckets))
    for suffix, unit in UNITS.items():
        if spec.name.endswith(suffix):
            assert spec.unit == unit
            break


def test_all_series_can_be_written_and_are_scraped_under_their_names() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert metrics.names == set(SPECS)
    for spec in CATALOGUE:
        labels = tuple(f"{label}-value" for label in spec.labels)
        write = {"counter": metrics.add, "gauge": metrics.set, "histogram": metrics.observe}[spec.kind]
        write(spec.name, 1.5, *labels)
        write(spec.name, 1.5, *labels)
    families = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    for spec in CATALOGUE:
        family = families[spec.name.removesuffix("_total")]
        assert family.type == spec.kind
        assert family.documentation == spec.meaning
        sample = next(s for s in family.samples if s.name == spec.name + ("_sum" if spec.kind == "histogram" else ""))
        assert sample.value == (1.5 if spec.kind == "gauge" else 3.0)
        assert set(sample.labels) == set(spec.labels)


def test_a_wrong_number_of_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="label"):
        Metrics(CollectorRegistry()).add("wattgate_requests_total", 1, "only one")
    with pytest.raises(KeyError):
        Metrics(CollectorRegistry()).add("wattgate_unheard_of_total", 1)


def test_the_table_has_a_row_for_each_series() -> None:
    lines = catalogue_markdown().splitlines()
    assert len(lines) == len(CATALOGUE) + 2
    assert all(line.count("|") == 6 for line in lines)
    for spec, line in zip(CATALOGUE, lines[2:], strict=True):
        assert line.startswith(f"| `{spec.name}` | {spec.kind} | {spec.unit} |")
