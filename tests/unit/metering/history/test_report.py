"""Reports: golden figures, unknown is never zero, methods are never mixed."""

from __future__ import annotations

import csv
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from metering.errors import BadInput
from metering.history import History, HistoryStore, NodeKey, NodeTotals, ServedKey, ServedTotals, Usage, UsageKey
from metering.report import GROUPINGS, build_report
from metering.report_html import report_html
from metering.report_savings import Baseline, Run, savings
from serving.cli import app

NANO = 10**9
MINUTE = 29_000_000
"""In February 2025."""


def key(model: str = "m", tenant: str = "t", minute: int = MINUTE, **fields: str) -> UsageKey:
    rest = {"method": "modelled", "estimator": "idle_aware", "zone": "DEU", "intensity_source": "codecarbon 2023"}
    return UsageKey(minute, model, tenant, **({**rest, "signal": "average"} | fields))


def usage(**changes: Any) -> Usage:
    """0.8 kWh of work, 0.2 idle, PUE 1.2, 400 g/kWh: 1.2 kWh, 480 g; 20 g embodied."""
    kwh = 3_600_000 * NANO
    fields = {
        "flops_prefill": 6e15,
        "flops_decode": 2e15,
        "tokens_prefill": 900,
        "tokens_cached": 100,
        "tokens_decode": 500,
        "device_seconds": 100.0,
        "peak_flop_seconds": 1e14 * 100.0,
        "embodied_seconds": 100.0,
        "accelerator_nanojoules": kwh * 6 // 10,
        "host_nanojoules": kwh * 2 // 10,
        "idle_nanojoules": kwh * 2 // 10,
        "overhead_nanojoules": kwh * 2 // 10,
        "operational_nanograms": 480 * NANO,
        "embodied_nanograms": 20 * NANO,
        "roofline_seconds": 2.0,
        "roofline_alone_seconds": 5.0,
        "prefix_flops_avoided": 2e15,
    }
    return Usage(**{**fields, **changes})


def served(**changes: Any) -> ServedTotals:
    fields = {
        "requests": 10,
        "failed": 1,
        "hits": 4,
        "prompt_tokens": 1000,
        "cached_prompt_tokens": 100,
        "output_tokens": 500,
        "avoided_tokens": 1000,
        "avoided_flops": 1e16,
        "avoided_joules": 50.0,
    }
    return ServedTotals(**{**fields, **changes})


def history(*rows: tuple[UsageKey, Usage], answers: ServedTotals | None = None) -> History:
    out = History(usage=dict(rows or [(key(), usage())]))
    out.served[ServedKey(MINUTE, "m", "t")] = answers or served()
    metered = 11 * 3_600_000 * NANO // 10
    out.node[NodeKey(MINUTE, "gpu", "accelerator", "modelled", "idle_aware")] = NodeTotals(
        metered, 3 * 3_600_000 * NANO // 10, 0, 60.0, 30.0
    )
    return out


def report(found: History, by: tuple[str, ...] = ("model", "tenant"), baseline: Baseline | None = None) -> Any:
    start = MINUTE * 60.0
    return build_report(
        found, since_epoch_seconds=start, until_epoch_seconds=start + 3600, by=by, baseline=baseline
    )  # fmt: skip


def test_golden_figures() -> None:
    (line,) = report(history()).as_dict()["groups"]
    assert (line["model"], line["tenant"], line["method"]) == ("m", "t", "modelled")
    assert (line["requests"], line["failed"], line["hits"]) == (10, 1, 4)
    assert line["tokens"]["total"] == 2500
    assert line["energy_kwh"] == pytest.approx(
        {"accelerator": 0.6, "host": 0.2, "idle": 0.2, "overhead": 0.2, "total": 1.2}
    )
    assert line["grams"] == pytest.approx(
        {"accelerator": 240, "host": 80, "idle": 80, "overhead": 80, "operational": 480, "embodied": 20}
    )
    assert line["intensity_grams_per_kwh"] == pytest.approx(400)
    assert line["per_1k_tokens"]["joules"] == pytest.approx(1.2 * 3.6e6 / 2.5)
    assert line["per_1k_tokens"]["operational_grams"] == pytest.approx(192)
    # (1.2 kWh x 400 g/kWh + 20 g) / 2.5 thousand tokens
    assert line["per_1k_tokens"]["sci_grams"] == pytest.approx(200)
    assert line["mfu_ratio"] == pytest.approx(0.8)
    assert line["missing"] == []
    assert report(history()).not_given_kwh() == pytest.approx(0.1)


def test_cost_stands_beside_grams_where_there_were_prices() -> None:
    priced = {"device_nanocost": 4 * NANO, "device_priced_seconds": 100.0}
    kwh = {"electricity_nanocost": NANO, "electricity_priced_seconds": 60.0}
    (line,) = report(history((key(), usage(**priced, **kwh)))).as_dict()["groups"]
    assert line["cost"] == {"devices": 4.0, "electricity": 1.0, "total": 5.0}
    assert line["per_1k_tokens"]["cost"] == pytest.approx(2.0)
    assert line["missing"] == ["cost of electricity for 40.0 s of device time: no price was given then"]
    (line,) = report(history()).as_dict()["groups"]
    assert line["cost"] == {"devices": None, "electricity": None, "total": None}
    assert line["missing"] == []


def test_the_last_digits_of_a_sum_are_nothing_missing() -> None:
    almost = math.nextafter(100.0, 0.0)
    priced = {"device_nanocost": 1, "device_priced_seconds": almost, "electricity_priced_seconds": almost}
    (line,) = report(history((key(), usage(**priced, embodied_seconds=almost)))).as_dict()["groups"]
    assert line["missing"] == []
    assert line["per_1k_tokens"]["sci_grams"] is not None


def test_golden_savings() -> None:
    (line,) = report(history(), baseline=Baseline(1.5, 800.0, "elsewhere")).as_dict()["groups"]
    saved = line["savings"]
    assert saved["response_cache"] == pytest.approx(2.0)
    assert saved["prefix_cache"] == pytest.approx(1.25)
    assert saved["model"] == pytest.approx(2.5)
    # work 0.8 x 5/2 (caches) x 5/2 (batching), idle 0.2 as it was; the actual run took 1.0
    before = 0.8 * 2.5 * 2.5 + 0.2
    assert saved["batching"] == pytest.approx(before / (0.8 * 2.5 + 0.2))
    assert saved["machine"] == pytest.approx(before / 2.5)
    assert saved["mechanization"] == pytest.approx(1.25)
    assert saved["map"] == pytest.approx(2.0)
    assert saved["total"] == pytest.approx(before * 1.25 * 2.0)
    assert saved["saved_grams"] == pytest.approx(480 * (saved["total"] - 1))
    assert any("elsewhere" in text for text in saved["baseline"])


positive = st.floats(1e-3, 1e18)


@settings(deadline=None)
@given(
    positive, st.floats(0, 1e18), st.floats(0, 1e18), positive, st.floats(0, 1e9), st.floats(0, 1e9), positive,
    st.floats(1, 100), st.none() | st.floats(1, 3), st.none() | st.floats(1, 1000),
)  # fmt: skip
def test_the_factors_multiply_to_the_total(
    flops: float, hits: float, prefix: float, work: float, idle: float, overhead: float, grams: float,
    longer: float, pue: float | None, intensity: float | None,
) -> None:  # fmt: skip
    found = savings(Run(flops, hits, prefix, work, idle, overhead, grams, 1.0, longer), Baseline(pue, intensity))
    assert not isinstance(found, str)
    assert found.total == pytest.approx(found.model * found.machine * found.mechanization * found.map)
    assert found.model == pytest.approx(found.response_cache * found.prefix_cache)
    assert found.machine == pytest.approx(found.batching * found.idle_spread)
    assert found.batching >= 1 - 1e-9
    assert found.idle_spread <= 1 + 1e-9
    assert found.saved_grams == pytest.approx(grams * (found.total - 1), rel=1e-6, abs=grams * 1e-6)


def test_hits_avoid_work_and_no_idle() -> None:
    # 1 J of work for half of the demand, beside 99 J of idle, at a gram a joule
    found = savings(Run(1e12, 1e12, 0.0, 1.0, 99.0, 0.0, 100.0, 1.0, 1.0), Baseline())
    assert not isinstance(found, str)
    assert found.total == pytest.approx(1.01)
    assert found.saved_grams == pytest.approx(1.0)


def test_without_caches_batches_or_baseline_nothing_is_claimed() -> None:
    alone = usage(prefix_flops_avoided=0.0, roofline_alone_seconds=2.0)
    (line,) = report(history((key(), alone), answers=served(avoided_flops=0.0))).as_dict()["groups"]
    assert line["savings"]["total"] == pytest.approx(1)
    assert line["savings"]["saved_grams"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "unknown", "names"),
    [
        (
            dict.fromkeys(("accelerator_nanojoules", "host_nanojoules", "idle_nanojoules", "overhead_nanojoules"), 0)
            | {"operational_nanograms": 0, "unmetered_seconds": 100.0},
            ["energy_kwh.total", "grams.operational", "per_1k_tokens.joules", "per_1k_tokens.sci_grams", "savings"],
            "no power reading",
        ),
        ({"unstamped_nanojoules": 5}, ["grams.operational", "per_1k_tokens.sci_grams", "savings"], "intensity was"),
        ({"embodied_seconds": 0.0, "embodied_nanograms": 0}, ["grams.embodied", "per_1k_tokens.sci_grams"], "embodied"),
        ({"embodied_seconds": 60.0}, ["per_1k_tokens.sci_grams"], "embodied carbon for 40.0 s"),
        ({"unreserved_seconds": 1.0}, ["per_1k_tokens.sci_grams"], "idle_policy `reserved`"),
        ({"peak_flop_seconds": 0.0}, ["mfu_ratio"], "peak is unknown"),
        ({"flops_prefill": 0.0, "flops_decode": 0.0}, ["flops", "mfu_ratio", "savings"], "architecture"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_none_and_named_never_zero(changes: dict[str, Any], unknown: list[str], names: str) -> None:
    (line,) = report(history((key(), usage(**changes)))).as_dict()["groups"]
    for path in unknown:
        value = line
        for part in path.split("."):
            value = value[part]
        assert value is None, path
    assert any(names in text for text in line["missing"]), line["missing"]


def test_mfu_of_a_total_leaves_out_work_whose_peak_was_unknown() -> None:
    found = history((key("known"), usage()), (key("unknown"), usage(peak_flop_seconds=0.0)))
    (total,) = report(found).as_dict()["totals"]
    assert total["mfu_ratio"] == pytest.approx(0.8)
    assert any("MFU for 100.0 s" in text for text in total["missing"])


def test_a_gap_of_the_meter_and_an_unmetered_host_are_named() -> None:
    (line,) = report(history((key(), usage(unmetered_seconds=3.0, host_nanojoules=0)))).as_dict()["groups"]
    assert line["energy_kwh"]["total"] is not None
    assert any("3.0 s" in text for text in line["missing"])
    assert any("host" in text for text in line["missing"])


def test_methods_and_signals_are_never_added_up() -> None:
    made = report(
        history(
            (key(), usage()),
            (key(method="simulated"), usage()),
            (key(signal="marginal", intensity_source="watttime"), usage()),
        )
    ).as_dict()
    assert {(line["method"], line["signal"]) for line in made["totals"]} == {
        ("modelled", "average"), ("modelled", "marginal"), ("simulated", "average"),
    }  # fmt: skip
    assert all(line["grams"]["operational"] == pytest.approx(480) for line in made["totals"])
    marginal = next(line for line in made["totals"] if line["signal"] == "marginal")
    assert marginal["per_1k_tokens"]["sci_grams"] is None
    assert any("never" in note or "not added up" in note for note in made["notes"])


def test_groups_add_up_to_the_total() -> None:
    found = history((key(), usage()), (key(tenant="u"), usage()), (key("n", minute=MINUTE + 60 * 24), usage()))
    for by in GROUPINGS:
        made = report(found, by=(by,)).as_dict()
        assert sum(line["energy_kwh"]["total"] for line in made["groups"]) == pytest.approx(3.6)
        assert sum(line["requests"] for line in made["groups"]) == 10
        assert made["totals"][0]["energy_kwh"]["total"] == pytest.approx(3.6)


def test_a_tenant_with_nothing_but_hits_is_listed() -> None:
    found = history()
    found.served[ServedKey(MINUTE, "m", "hits-only")] = ServedTotals(requests=3, hits=3, avoided_tokens=30)
    lines = {line["tenant"]: line for line in report(found).as_dict()["groups"]}
    assert lines["hits-only"]["requests"] == 3
    assert lines["hits-only"]["energy_kwh"]["total"] is None


def test_answers_are_counted_where_the_work_for_them_is() -> None:
    found = history((key(), usage()), (key("sim", method="simulated"), usage(device_seconds=1e6)))
    found.served[ServedKey(MINUTE, "sim", "t")] = ServedTotals(requests=7)
    for by in ((), ("tenant",), ("model",)):
        lines = report(found, by=by).lines
        assert {line.method: line.served.requests for line in lines} == {"modelled": 10, "simulated": 7}


@pytest.mark.parametrize("by", [("modle",), ("model", "model")])
def test_unknown_groupings_are_refused(by: tuple[str, ...]) -> None:
    with pytest.raises(BadInput):
        report(history(), by=by)


@pytest.mark.parametrize("baseline", [{"pue": 0.9}, {"intensity_grams_per_kwh": 0.0}])
def test_impossible_baselines_are_refused(baseline: dict[str, float]) -> None:
    with pytest.raises(BadInput):
        Baseline(**baseline)


class Page(HTMLParser):
    """Whether tags are balanced, and everything that would be fetched."""

    VOID = frozenset({"meta", "line", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_alone_and_escapes_what_it_was_given() -> None:
    hostile = "<script>alert(1)</script>"
    found = history((key(hostile), usage()), (key(minute=MINUTE + 3), usage()))
    text = report_html(report(found))
    page = Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "script" not in page.tags
    assert page.tags.count("svg") == 2
    assert hostile not in text
    assert "prefers-color-scheme: dark" in text
    assert "url(" not in text
    assert len(text) < 50_000


def test_an_empty_page_says_so() -> None:
    text = report_html(report(History()))
    assert Page(text).open == []
    assert "nothing was recorded" in text


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "history.sqlite3"
    HistoryStore(path).add(history())
    return path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["report", *arguments])


SINCE = ("--since", "2025-01-01", "--until", "2025-12-31")


def test_the_command_prints_json(store: Path) -> None:
    for form in (("--json",), ("--format", "json")):
        done = run(*SINCE, "--store", str(store), "--by", "tenant", "--baseline-zone", "WORLD", *form)
        assert done.exit_code == 0, done.output
        made = json.loads(done.stdout)
        assert made["groups"][0]["grams"]["operational"] == pytest.approx(480)
        assert made["groups"][0]["savings"]["map"] > 1
        assert made["how"]["sci_grams"]


def test_the_command_prints_csv(store: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(*SINCE, "--store", str(store), "--format", "csv").stdout)))
    assert [float(row["energy_kwh.total"]) for row in rows] == [pytest.approx(1.2)]
    assert rows[0]["zones"] == "DEU"


def test_the_command_prints_a_table_and_writes_a_page(store: Path, tmp_path: Path) -> None:
    done = run(*SINCE, "--store", str(store))
    assert done.exit_code == 0, done.output
    assert "saved" in done.stdout
    page = tmp_path / "report.html"
    assert run(*SINCE, "--store", str(store), "--format", "html", "-o", str(page)).exit_code == 0
    assert page.read_text().startswith("<!doctype html>")


def test_an_empty_period_is_reported_as_empty(store: Path) -> None:
    for form in ("table", "csv", "json", "html"):
        done = run("--since", "1h", "--store", str(store), "--format", form)
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--store", "missing"], "--store"),
        (["--since", "whenever"], "whenever"),
        (["--by", "modle"], "model"),
        (["--baseline-zone", "Germny"], "Germany"),
        (["--baseline-pue", "0.5"], "PUE"),
        (["--since", "1h", "--until", "2h"], "before"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(store: Path, arguments: list[str], names: str) -> None:
    arguments = arguments if "--store" in arguments else ["--store", str(store), *arguments]
    done = run(*arguments)
    assert done.exit_code == 2
    assert names in done.stderr
    assert done.stderr.count("\n") == 1
