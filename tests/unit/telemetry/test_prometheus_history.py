"""A report's history out of a Prometheus that answers from a script of samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from metering.history import ServedKey
from metering.report import build_report
from serving.telemetry.prometheus_history import MOST_STEPS, PrometheusHistory, PrometheusUnavailable

SINCE, STEP = 1_700_000_040.0, 15.0
WHO = {"model": "m", "tenant": "t", "instance": "a:1"}
GRID = {"zone": "DEU", "source": "codecarbon 2023", "signal": "average", "quality": "static", "instance": "a:1"}
METER = {"component": "gpu", "boundary": "accelerator", "method": "measured", "source": "nvml", "instance": "a:1"}


class Scripted:
    """Series as (metric, labels, value before the period or None, values by step; None: not there)."""

    def __init__(self, *series: tuple[str, Mapping[str, str], float | None, Sequence[float | None]]) -> None:
        self._series = series
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.asked.append(form)
        ranged = request.url.path.endswith("query_range")
        found: list[dict[str, Any]] = []
        for metric, labels, before, values in self._series:
            if metric not in (form["query"], form["query"].removeprefix("last_over_time(").removesuffix("[1d])")):
                continue
            named = {"__name__": metric, **labels}
            if ranged:
                start, step = float(form["start"]), float(form["step"])
                points = [[start + (k + 1) * step, str(v)] for k, v in enumerate(values) if v is not None]
                found.append({"metric": named, "values": points})
            elif before is not None:
                # the function takes the name away
                found.append({"metric": dict(labels), "value": [float(form["time"]), str(before)]})
        return httpx.Response(200, json={"status": "success", "data": {"result": found}})

    def read(self, steps: int = 4) -> Any:
        source = PrometheusHistory("http://p:9090/", httpx.Client(transport=httpx.MockTransport(self)))
        return source.read(SINCE, SINCE + steps * STEP)


def grown(metric: str, labels: Mapping[str, str], before: float | None, *values: float | None) -> float:
    """Output tokens counted by a series."""
    return float(
        Scripted((metric, labels, before, values)).read().served[ServedKey(int(SINCE // 60), "m", "t")].output_tokens
    )


def test_a_counter_is_what_it_grew_by_through_gaps_and_restarts() -> None:
    tokens = "wattgate_tokens_total", {**WHO, "kind": "output"}
    assert grown(*tokens, 100.0, 100, 130, 130, 150) == 50
    assert grown(*tokens, None, None, 7, 9, 9) == 9
    assert grown(*tokens, 100.0, None, None, 104, 110) == 10
    assert grown(*tokens, 100.0, 110, 4, 6, 6) == 16


def test_what_hits_cost_beyond_the_run_they_replaced_is_taken_off_what_they_avoided() -> None:
    scripted = Scripted(
        ("wattgate_avoided_joules_total", WHO, None, [None, 50.0]),
        ("wattgate_excess_joules_total", WHO, None, [None, 8.0]),
        ("wattgate_avoided_grams_total", WHO, None, [None, 5.0]),
        ("wattgate_excess_grams_total", WHO, None, [None, 1.0]),
    )
    served = scripted.read().served[ServedKey(int(SINCE // 60), "m", "t")]
    assert (served.avoided_joules, served.avoided_grams) == (42.0, 4.0)


def energy(**changes: float) -> tuple[tuple[str, Mapping[str, str], float | None, Sequence[float | None]], ...]:
    """Half a kWh at the accelerator, a quarter idle; PUE 1.2; 400 g/kWh: 360 g."""
    joules = {"accelerator": 1.8e6, "idle": 0.9e6, "overhead": 0.54e6}
    return (
        ("wattgate_intensity_grams_per_kwh", GRID, None, [400, 400, 400, 400]),
        ("wattgate_energy_joules_total", METER, 10.0, [10, 3e6 + 10]),
        ("wattgate_idle_joules_total", {"component": "gpu", "instance": "a:1"}, None, [None, 1.2e6]),
        *(("wattgate_request_joules_total", {**WHO, "boundary": b}, None, [None, j]) for b, j in joules.items()),
        ("wattgate_request_grams_total", {**WHO, "scope": "operational"}, None, [None, changes.get("grams", 360.0)]),
        ("wattgate_request_grams_total", {**WHO, "scope": "embodied"}, None, [None, 15.0]),
        ("wattgate_device_seconds_total", WHO, None, [None, 100.0]),
        ("wattgate_flops_total", {**WHO, "phase": "prefill"}, None, [None, 3e15]),
        ("wattgate_flops_total", {**WHO, "phase": "decode"}, None, [None, 1e15]),
        ("wattgate_possible_flops_total", WHO, None, [None, 1e16]),
        ("wattgate_executed_tokens_total", {**WHO, "phase": "decode"}, None, [None, 500.0]),
        ("wattgate_tokens_total", {**WHO, "kind": "prompt"}, None, [None, 900.0]),
        ("wattgate_tokens_total", {**WHO, "kind": "cached_prompt"}, None, [None, 100.0]),
        ("wattgate_tokens_total", {**WHO, "kind": "output"}, None, [None, 500.0]),
        ("wattgate_requests_total", {**WHO, "endpoint": "chat", "status": "200", "cache": "MISS"}, 5.0, [5, 9]),
        ("wattgate_requests_total", {**WHO, "endpoint": "chat", "status": "499", "cache": "MISS"}, None, [None, 1]),
        ("wattgate_requests_total", {**WHO, "endpoint": "chat", "status": "200", "cache": "HIT-EXACT"}, None, [2, 2]),
        ("wattgate_requests_total", {**WHO, "model": "unknown", "status": "404", "cache": "BYPASS"}, None, [3]),
    )


def figures(*series: Any) -> Any:
    made = build_report(
        Scripted(*series).read(), since_epoch_seconds=SINCE, until_epoch_seconds=SINCE + 60, by=("model",)
    )
    return made.as_dict()


def test_a_report_out_of_prometheus_has_what_the_nodes_own_has() -> None:
    told = figures(*energy())
    (line,) = told["groups"]
    assert (line["requests"], line["failed"], line["hits"]) == (7, 1, 2)
    assert line["tokens"]["prompt"] == 1000
    assert line["tokens"]["executed_decode"] == 500
    assert line["energy_kwh"]["total"] == pytest.approx(0.9)
    assert line["grams"]["operational"] == pytest.approx(360)
    assert line["grams"]["embodied"] == pytest.approx(15)
    assert line["mfu_ratio"] == pytest.approx(0.4)
    assert line["intensity_grams_per_kwh"] == pytest.approx(400)
    assert (line["method"], line["estimator"], line["zones"]) == ("measured", "nvml", ["DEU"])
    assert line["per_1k_tokens"]["sci_grams"] == pytest.approx(375 / 1.5)
    (node,) = told["node"]
    assert node["metered_kwh"] == pytest.approx(3e6 / 3.6e6)
    assert node["idle_kwh"] == pytest.approx(1.2e6 / 3.6e6)
    assert line["missing"] == ["energy of the host: not metered, not included"]


def test_joules_without_grams_are_of_unknown_carbon_and_not_of_none() -> None:
    (line,) = figures(*[one for one in energy() if "grams" not in one[0]])["groups"]
    assert line["grams"]["operational"] is None
    assert any("the grid intensity was unknown" in text for text in line["missing"])


def test_work_without_joules_is_of_unknown_energy() -> None:
    (line,) = figures(*[one for one in energy() if "joules" not in one[0]])["groups"]
    assert line["energy_kwh"]["total"] is None
    assert any("no power reading" in text for text in line["missing"])


def test_average_and_marginal_are_lines_of_their_own() -> None:
    marginal = ("wattgate_request_grams_total", {**WHO, "scope": "operational_marginal"}, None, [None, 80.0])
    told = figures(*energy(), marginal)
    assert {line["signal"] for line in told["groups"]} == {"average", "marginal"}


@pytest.mark.parametrize("days", [0.001, 1, 30, 400])
def test_no_period_asks_for_more_points_than_prometheus_gives_and_the_last_is_its_end(days: float) -> None:
    scripted = Scripted()
    source = PrometheusHistory("http://p", httpx.Client(transport=httpx.MockTransport(scripted)))
    source.read(SINCE, SINCE + days * 86_400)
    asked = [form for form in scripted.asked if "step" in form]
    for form in asked:
        start, end, step = (float(form[name]) for name in ("start", "end", "step"))
        points = (end - start) / step
        assert points == pytest.approx(round(points), abs=1e-3)
        assert points <= MOST_STEPS
        assert end == SINCE + days * 86_400
        assert 0 <= start - SINCE <= MOST_STEPS / 1000


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(400, json={"status": "error", "error": "bad_data"}), "refused: bad_data"),
        (httpx.Response(200, text="<html>"), "does not answer as Prometheus does"),
        (httpx.Response(200, content=json.dumps([1])), "does not answer as Prometheus does"),
    ],
)
def test_what_is_no_prometheus_is_named(answer: httpx.Response, says: str) -> None:
    source = PrometheusHistory("http://p:1", httpx.Client(transport=httpx.MockTransport(lambda _: answer)))
    with pytest.raises(PrometheusUnavailable, match=says):
        source.read(SINCE, SINCE + 60)


def test_a_prometheus_that_is_away_is_named() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    source = PrometheusHistory("http://me:secret@p:1", httpx.Client(transport=httpx.MockTransport(refuse)))
    with pytest.raises(PrometheusUnavailable, match="cannot reach Prometheus at http://p:1"):
        source.read(SINCE, SINCE + 60)


def test_device_time_under_another_idle_policy_leaves_no_sci_score() -> None:
    # by_time and by_flops give all idle to requests too, as `reserved` does: only the counter tells them apart
    unreserved = ("wattgate_unreserved_device_seconds_total", WHO, None, [None, 1.0])
    (line,) = figures(*energy(), unreserved)["groups"]
    assert line["per_1k_tokens"]["sci_grams"] is None
    assert any("idle_policy" in text for text in line["missing"])
