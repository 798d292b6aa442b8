"""The Grafana dashboards as code: ``python deploy/grafana/dashboards.py`` writes their JSON beside this file.

Panels read what ``prometheus/recording.yaml`` records and what the gateway exports; the datasource is a variable.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

HERE = Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
MODEL = 'model=~"$model"'
AVERAGE = f'{MODEL}, scope!="operational_marginal"'
"""Grams of a marginal signal are another quantity than those of the grid's mean, and are never added to them."""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    unit: str
    """A Grafana unit id."""
    queries: tuple[tuple[str, str], ...]
    """(expression, legend)."""
    description: str = ""
    stat: bool = False
    stacked: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    uid: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


@dataclass(frozen=True, slots=True)
class Annotation:
    name: str
    expression: str
    colour: str
    title: str
    """What stands over the hover's text; ``{{label}}`` is filled in, here and in ``text``."""
    text: str
    tags: str
    """Labels, by commas."""
    timed_by_value: bool = False
    """The value is the moment, in Unix milliseconds."""

    def built(self) -> dashboard.AnnotationQuery:
        query = dashboard.AnnotationQuery().name(self.name).datasource(SOURCE).enable(True)
        return query.icon_color(self.colour).expr(self.expression)

    def told(self) -> dict[str, str | bool]:
        """What Grafana's Prometheus source takes of an annotation, and its SDK has no word for."""
        return {
            "titleFormat": self.title,
            "textFormat": self.text,
            "tagKeys": self.tags,
            "useValueForTime": self.timed_by_value,
        }


def one(title: str, unit: str, expression: str, legend: str = "{{model}}", **more: object) -> Panel:
    return Panel(title, unit, ((expression, legend),), **more)  # type: ignore[arg-type]


def _net(unit: str, of: str = "{}") -> str:
    """What hits avoided, less what some of them cost beyond the run that they replaced."""
    avoided, excess = (
        f"sum({of.format(f'wattgate_{kind}_{unit}_total{{{MODEL}}}')})" for kind in ("avoided", "excess")
    )
    return f"{avoided} - ({excess} or vector(0))"


def quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{MODEL}}}[$__rate_interval])))", f"p{100 * q:g}")
        for q in (0.5, 0.95, 0.99)
    )


TOKENS, JOULES, GRAMS = (f"sum(model:wattgate_{what}:rate5m)" for what in ("output_tokens", "joules", "grams"))
DAY_TOKENS, DAY_JOULES, DAY_GRAMS = (
    f"sum(avg_over_time(model:wattgate_{what}:rate5m[1d]))" for what in ("output_tokens", "joules", "grams")
)

CARBON = Page(
    "wattgate-carbon",
    "wattgate: Carbon",
    "Grams and joules by who caused them and where they arose.",
    (
        (
            "Now",
            (
                one("Grams a day, at this hour's rate", "none", "wattgate:grams_per_day:rate1h", "gCO2e", stat=True),
                one(
                    "Grams per 1,000 output tokens",
                    "none",
                    f"model:wattgate_grams_per_1k_output_tokens:rate5m{{{MODEL}}}",
                    stat=True,
                ),
                one(
                    "Joules per output token",
                    "joule",
                    f"model:wattgate_joules_per_output_token:rate5m{{{MODEL}}}",
                    stat=True,
                ),
                one("Idle share of energy", "percentunit", "wattgate:idle_joules:ratio_rate1h", "idle", stat=True),
            ),
        ),
        (
            "Who and where",
            (
                one(
                    "Grams by model (g/h)",
                    "none",
                    f"3600 * sum by (model) (rate(wattgate_request_grams_total{{{AVERAGE}}}[$__rate_interval]))",
                    stacked=True,
                ),
                one(
                    "Grams by tenant (g/h)",
                    "none",
                    f"3600 * sum by (tenant) (rate(wattgate_request_grams_total{{{AVERAGE}}}[$__rate_interval]))",
                    "{{tenant}}",
                    stacked=True,
                ),
                one(
                    "Grams by boundary (g/h)",
                    "none",
                    # each model's operational grams, as its joules are: one intensity and PUE hold for all of them
                    f"3600 * sum by (boundary) (sum by (model, boundary) "
                    f"(rate(wattgate_request_joules_total{{{MODEL}}}[$__rate_interval])) "
                    f"* on (model) group_left () (sum by (model) "
                    f'(rate(wattgate_request_grams_total{{{MODEL},scope="operational"}}[$__rate_interval])) '
                    f"/ (sum by (model) (rate(wattgate_request_joules_total{{{MODEL}}}[$__rate_interval])) > 0)))",
                    "{{boundary}}",
                    description="Operational: accelerator, host, idle time and overhead.",
                    stacked=True,
                ),
                one(
                    "Grams by scope (g/h)",
                    "none",
                    f"3600 * sum by (scope) (rate(wattgate_request_grams_total{{{MODEL}}}[$__rate_interval]))",
                    "{{scope}}",
                    stacked=True,
                ),
                one(
                    "Power by boundary",
                    "watt",
                    f"sum by (boundary) (rate(wattgate_request_joules_total{{{MODEL}}}[$__rate_interval]))",
                    "{{boundary}}",
                    stacked=True,
                ),
                one(
                    "Cost by cause, an hour",
                    "none",
                    f"3600 * sum by (cause) (rate(wattgate_request_cost_total{{{MODEL}}}[$__rate_interval]))",
                    "{{cause}}",
                    stacked=True,
                ),
                one("Power as metered", "watt", "sum by (component) (wattgate_power_watts)", "{{component}}"),
                one(
                    "Grid intensity (g/kWh)",
                    "none",
                    "max by (zone, source) (wattgate_intensity_grams_per_kwh)",
                    "{{zone}}, {{source}}",
                ),
            ),
        ),
        (
            "What moved the grams",
            (
                Panel(
                    "Factors, each against the last day's mean",
                    "percentunit",
                    (
                        (f"{TOKENS} / {DAY_TOKENS}", "tokens"),
                        (f"({JOULES} / {TOKENS}) / ({DAY_JOULES} / {DAY_TOKENS})", "joules per token"),
                        (f"({GRAMS} / {JOULES}) / ({DAY_GRAMS} / {DAY_JOULES})", "grams per joule"),
                    ),
                    "Grams = tokens x joules per token x grams per joule: which of them moved?",
                    wide=True,
                ),
                Panel(
                    "Avoided by the cache (g/h), and what the hits cost (W)",
                    "none",
                    (
                        (f"3600 * ({_net('grams', 'rate({}[$__rate_interval])')})", "avoided g/h"),
                        (f"sum(rate(wattgate_hit_joules_total{{{MODEL}}}[$__rate_interval]))", "cost of hits W"),
                    ),
                ),
                one(
                    "Books: metered minus booked",
                    "joule",
                    "sum by (component) (wattgate_books_difference_joules)",
                    "{{component}}",
                    description="Anything but zero is a defect.",
                ),
            ),
        ),
    ),
)

SERVING = Page(
    "wattgate-serving",
    "wattgate: Serving",
    "Latency, load and errors.",
    (
        (
            "Now",
            (
                one("Goodput", "reqps", f"model:wattgate_goodput_requests:rate5m{{{MODEL}}}", stat=True),
                one("Error ratio", "percentunit", "wattgate:errors:ratio_rate5m", "5xx", stat=True),
                one("Burn rate, 1 h", "none", "wattgate:errors:burn1h", "errors", stat=True),
                one("MFU", "percentunit", f"model:wattgate_mfu_ratio:avg5m{{{MODEL}}}", stat=True),
            ),
        ),
        (
            "Latency",
            (
                Panel("Time to first token", "s", quantiles("wattgate_time_to_first_token_seconds")),
                one(
                    "Time to first token by where it went",
                    "s",
                    f"sum by (part) (rate(wattgate_time_to_first_token_part_seconds_sum{{{MODEL}}}[$__rate_interval]))"
                    " / ignoring(part) group_left"
                    f" sum(rate(wattgate_time_to_first_token_seconds_count{{{MODEL}}}[$__rate_interval]))",
                    "{{part}}",
                    description="Means, which add up: waiting for a slot, the engine, and the gateway's own rest.",
                    stacked=True,
                ),
                Panel("Inter-token time", "s", quantiles("wattgate_inter_token_seconds")),
                Panel("Time in the queue", "s", quantiles("wattgate_queue_seconds")),
                Panel("Whole request", "s", quantiles("wattgate_request_seconds")),
                one(
                    "Gateway's own time, p95",
                    "s",
                    "histogram_quantile(0.95,"
                    " sum by (path, le) (rate(wattgate_overhead_seconds_bucket[$__rate_interval])))",
                    "{{path}}",
                ),
                one("Event-loop lag", "s", "max by (instance) (wattgate_event_loop_lag_seconds)", "{{instance}}"),
            ),
        ),
        (
            "Load",
            (
                one(
                    "Requests by status",
                    "reqps",
                    f"sum by (status) (rate(wattgate_requests_total{{{MODEL}}}[$__rate_interval]))",
                    "{{status}}",
                    stacked=True,
                ),
                one(
                    "Tokens by kind (a second)",
                    "none",
                    f"sum by (kind) (rate(wattgate_tokens_total{{{MODEL}}}[$__rate_interval]))",
                    "{{kind}}",
                    stacked=True,
                ),
                one(
                    "Requests inside the gateway",
                    "none",
                    "sum by (endpoint) (wattgate_inflight_requests)",
                    "{{endpoint}}",
                    stacked=True,
                ),
                Panel(
                    "Batch and queue",
                    "none",
                    (
                        (f"sum(wattgate_running_requests{{{MODEL}}})", "running"),
                        (f"sum(wattgate_waiting_requests{{{MODEL}}})", "waiting"),
                        (f"sum(wattgate_concurrency_cap{{{MODEL}}})", "cap"),
                    ),
                ),
                Panel(
                    "MFU and MBU of each window",
                    "percentunit",
                    (
                        (f"avg by (model) (wattgate_mfu_ratio{{{MODEL}}})", "{{model}} compute"),
                        (f"avg by (model) (wattgate_mbu_ratio{{{MODEL}}})", "{{model}} bandwidth"),
                    ),
                ),
                one(
                    "MFU of the device time attributed",
                    "percentunit",
                    f"sum by (model) (rate(wattgate_flops_total{{{MODEL}}}[$__rate_interval])) "
                    f"/ sum by (model) (rate(wattgate_possible_flops_total{{{MODEL}}}[$__rate_interval]))",
                ),
                one(
                    "Tokens worked on, by phase",
                    "none",
                    f"sum by (phase) (rate(wattgate_executed_tokens_total{{{MODEL}}}[$__rate_interval]))",
                    "{{phase}}",
                    stacked=True,
                ),
                one(
                    "Least device time: each alone, over as batched",
                    "none",
                    f'sum(rate(wattgate_roofline_seconds_total{{{MODEL},batch="alone"}}[$__rate_interval])) '
                    f'/ sum(rate(wattgate_roofline_seconds_total{{{MODEL},batch="shared"}}[$__rate_interval]))',
                    "times",
                ),
                one(
                    "FLOPs by phase",
                    "flops",
                    f"sum by (phase) (rate(wattgate_flops_total{{{MODEL}}}[$__rate_interval]))",
                    "{{phase}}",
                    stacked=True,
                ),
                one(
                    "Away from its reference",
                    "none",
                    f"max by (model, what) (wattgate_drifted{{{MODEL}}}) > 0 or vector(0)",
                    "{{model}} {{what}}",
                    description="Drift: 1 while what is named has moved and is not back; /v1/events says by how much.",
                ),
                one("Tasks of the replicas", "none", "sum(wattgate_event_loop_tasks)", "tasks"),
                Panel(
                    "Engines ready, deaths and fallbacks in 30 min",
                    "none",
                    (
                        (f"sum by (model) (wattgate_engine_ready{{{MODEL}}})", "{{model}} ready"),
                        (f"sum(increase(wattgate_engine_deaths_total{{{MODEL}}}[30m])) or vector(0)", "deaths"),
                        (f"sum(increase(wattgate_fallback_total{{{MODEL}}}[30m])) or vector(0)", "by a fallback"),
                    ),
                ),
            ),
        ),
        (
            "Scale to zero, and limits",
            (
                one("Replicas asleep", "none", f"sum by (model) (wattgate_engine_asleep{{{MODEL}}})"),
                Panel(
                    "Energy of sleeps",
                    "joule",
                    (
                        (
                            f'sum(wattgate_engine_asleep_joules_total{{kind="expected",{MODEL}}}) or vector(0)',
                            "expected",
                        ),
                        (f'sum(wattgate_engine_asleep_joules_total{{kind="metered",{MODEL}}}) or vector(0)', "metered"),
                        (f'sum(wattgate_engine_asleep_joules_total{{kind="wake",{MODEL}}}) or vector(0)', "wake"),
                    ),
                    "Saved: expected (idle, engine loaded) - metered (while unloaded) - wake (loading it again).",
                ),
                Panel(
                    "Waking up",
                    "s",
                    (
                        (
                            f"sum(rate(wattgate_engine_wake_seconds_sum{{{MODEL}}}[1h])) "
                            f"/ (sum(rate(wattgate_engine_wake_seconds_count{{{MODEL}}}[1h])) > 0)",
                            "mean of the last hour",
                        ),
                    ),
                ),
                Panel(
                    "Refused for want of room",
                    "ops",
                    (
                        (
                            "sum by (priority, reason) "
                            f"(rate(wattgate_admission_refusals_total{{{MODEL}}}[$__rate_interval])) or vector(0)",
                            "{{priority}}, {{reason}}",
                        ),
                    ),
                    "queue_full, deadline_unmeetable: told at once; deadline_before_run: after a wait in vain.",
                    stacked=True,
                ),
                Panel(
                    "Tenants' limits",
                    "ops",
                    (
                        (
                            "sum by (reason) (rate(wattgate_limit_refusals_total[$__rate_interval])) or vector(0)",
                            "refused, {{reason}}",
                        ),
                        (
                            "sum by (reason) (rate(wattgate_limit_overdrawn_total[$__rate_interval])) or vector(0)",
                            "let in, {{reason}}",
                        ),
                    ),
                    "Let in: a soft carbon budget is spent.",
                    stacked=True,
                ),
            ),
        ),
    ),
)

CACHE = Page(
    "wattgate-cache",
    "wattgate: Cache",
    "Hits, what they avoid, and what guards them.",
    (
        (
            "Now",
            (
                one("Hit ratio", "percentunit", "wattgate:cache_hit:ratio_rate5m", "hits", stat=True),
                one("Avoided so far", "joule", _net("joules"), "energy", stat=True),
                one("Avoided grams so far", "none", _net("grams"), "gCO2e", stat=True),
                one(
                    "Avoided cost so far",
                    "none",
                    _net("cost"),
                    "electricity",
                    stat=True,
                    description="Of electricity, in the currency of your prices; none without prices.",
                ),
                one(
                    "Tokens avoided so far",
                    "none",
                    f'sum(wattgate_tokens_total{{kind="avoided",{MODEL}}})',
                    "tokens",
                    stat=True,
                ),
            ),
        ),
        (
            "Lookups",
            (
                one(
                    "Outcomes",
                    "ops",
                    "sum by (outcome) (rate(wattgate_cache_lookups_total[$__rate_interval]))",
                    "{{outcome}}",
                    stacked=True,
                ),
                one(
                    "Tiers",
                    "ops",
                    "sum by (tier) (rate(wattgate_cache_lookups_total[$__rate_interval]))",
                    "{{tier}}",
                    stacked=True,
                ),
                one(
                    "Why",
                    "ops",
                    "sum by (outcome, why) (rate(wattgate_cache_lookups_total[$__rate_interval]))",
                    "{{outcome}}: {{why}}",
                ),
                one(
                    "Lookup time, p95",
                    "s",
                    "histogram_quantile(0.95,"
                    " sum by (outcome, le) (rate(wattgate_cache_lookup_seconds_bucket[$__rate_interval])))",
                    "{{outcome}}",
                ),
            ),
        ),
        (
            "Stores, guards and faults",
            (
                one(
                    "Stores, and what was refused",
                    "ops",
                    "sum by (tier, why) (rate(wattgate_cache_stores_total[$__rate_interval]))",
                    "{{tier}}: {{why}}",
                    stacked=True,
                ),
                one(
                    "Judgements of semantic neighbours",
                    "ops",
                    "sum by (why, guard) (rate(wattgate_cache_judgements_total[$__rate_interval])) or vector(0)",
                    "{{why}} {{guard}}",
                    description="Only the semantic tier judges.",
                ),
                one(
                    "Faults of the store",
                    "ops",
                    "sum by (operation, fault) (rate(wattgate_cache_faults_total[$__rate_interval])) or vector(0)",
                    "{{operation}}: {{fault}}",
                ),
                one(
                    "Index entries swept",
                    "ops",
                    "sum by (reason) (rate(wattgate_cache_swept_total[$__rate_interval])) or vector(0)",
                    "{{reason}}",
                ),
            ),
        ),
    ),
)

_PROMISE = (
    "The promise about wrong answers",
    (
        Panel(
            "Wrong semantic answers, verified",
            "percentunit",
            (
                ("max by (kind) (wattgate_cache_false_hit_ratio)", "{{kind}}"),
                ("min(wattgate_cache_max_wrong_ratio)", "budget"),
            ),
            "Estimate and its Wilson bounds among the recent hits that were run on the model too, and the budget. "
            "Nothing here without verified hits: unknown is not zero.",
        ),
        one(
            "Score that a neighbour has to exceed",
            "none",
            "max(wattgate_cache_threshold_ratio)",
            "threshold",
            description="Rises at once when the verified wrong answers leave the budget.",
        ),
        one(
            "Shadow verifications",
            "ops",
            "sum by (outcome) (rate(wattgate_cache_shadow_total[$__rate_interval])) or vector(0)",
            "{{outcome}}",
            stacked=True,
        ),
        one(
            "Errors of comparing answers",
            "percentunit",
            "max by (kind) (wattgate_cache_comparator_error_ratio)",
            "{{kind}}",
            description="Taken out of the wrong answers above.",
        ),
        one(
            "Grey zone put to the model",
            "ops",
            "sum by (outcome) (rate(wattgate_cache_grey_zone_total[$__rate_interval])) or vector(0)",
            "{{outcome}}",
            stacked=True,
        ),
        one(
            "Runs shared by identical requests",
            "ops",
            "sum by (reason) (rate(wattgate_cache_shared_total[$__rate_interval])) or vector(0)",
            "{{reason}}",
        ),
    ),
)
CACHE = replace(CACHE, rows=(*CACHE.rows, _PROMISE))

_BATCHES = (
    "Batches",
    (
        one("Batches running", "none", "sum(wattgate_batches_running) or vector(0)", "running"),
        one(
            "Lines of batches",
            "ops",
            "sum by (outcome) (rate(wattgate_batch_lines_total[$__rate_interval])) or vector(0)",
            "{{outcome}}",
            stacked=True,
            description="tried_again: attempts that found no room, or a fault of the engine's.",
        ),
        one(
            "Batches ended, faults",
            "none",
            "sum by (status) (increase(wattgate_batches_total[$__rate_interval])) or "
            "sum by (operation) (increase(wattgate_batch_faults_total[$__rate_interval])) or vector(0)",
            "{{status}}{{operation}}",
        ),
    ),
)
SERVING = replace(SERVING, rows=(*SERVING.rows, _BATCHES))

TUNING = Page(
    "wattgate-tuning",
    "wattgate: Tuning",
    "The live cap, and what it buys: batch, latency, utilisation, grams.",
    (
        (
            "The knob",
            (
                one("Live cap", "none", f"sum by (model) (wattgate_concurrency_cap{{{MODEL}}})"),
                one("Effective batch", "none", f"model:wattgate_running_requests:avg5m{{{MODEL}}}"),
                one("Waiting for each place", "none", f"model:wattgate_queue_fill:ratio_avg5m{{{MODEL}}}"),
            ),
        ),
        (
            "What it costs",
            (
                one("Time to first token, p95", "s", f"model:wattgate_ttft_seconds:p95_5m{{{MODEL}}}"),
                one("Inter-token time, p95", "s", f"model:wattgate_itl_seconds:p95_5m{{{MODEL}}}"),
                one("Slow first tokens: burn rate, 1 h", "none", f"model:wattgate_slow_first_tokens:burn1h{{{MODEL}}}"),
            ),
        ),
        (
            "What it buys",
            (
                one("Output tokens a second", "none", f"model:wattgate_output_tokens:rate5m{{{MODEL}}}"),
                one("MFU", "percentunit", f"model:wattgate_mfu_ratio:avg5m{{{MODEL}}}"),
                one(
                    "Grams per 1,000 output tokens",
                    "none",
                    f"model:wattgate_grams_per_1k_output_tokens:rate5m{{{MODEL}}}",
                ),
                one("Joules per output token", "joule", f"model:wattgate_joules_per_output_token:rate5m{{{MODEL}}}"),
            ),
        ),
        (
            "The controller",
            (
                one("Cap wanted", "none", f"sum by (model) (wattgate_control_wanted_cap{{{MODEL}}})"),
                one(
                    "p95 seen, as a share of its bound",
                    "percentunit",
                    f"max by (model, metric) (wattgate_control_seen_seconds{{{MODEL}}})"
                    f" / max by (model, metric) (wattgate_control_bound_seconds{{{MODEL}}})",
                    "{{model}} {{metric}}",
                ),
                one(
                    "Windows that kept the promise",
                    "percentunit",
                    f'sum by (model) (increase(wattgate_control_windows_total{{{MODEL}, kept="yes"}}[15m]))'
                    f" / (sum by (model) (increase(wattgate_control_windows_total{{{MODEL}}}[15m])) > 0)",
                ),
                one(
                    "Decisions",
                    "ops",
                    f"sum by (move, reason) (rate(wattgate_control_decisions_total{{{MODEL}}}[$__rate_interval]))"
                    " or vector(0)",
                    "{{move}} {{reason}}",
                ),
            ),
        ),
    ),
)

PAGES = (CARBON, SERVING, CACHE, TUNING)
ANNOTATIONS = (
    Annotation(
        "Events",
        # a node's replicas, and the nodes, may tell of the same change
        "1000 * max by (kind, model, text) (wattgate_event_timestamp_seconds)",
        "green",
        title="{{kind}} {{model}}",
        text="{{text}}",
        tags="kind,model",
        timed_by_value=True,
    ),
    Annotation(
        "Engine died",
        "sum by (model, instance) ((wattgate_engine_deaths_total unless wattgate_engine_deaths_total offset 1m) "
        "or increase(wattgate_engine_deaths_total[1m])) > 0",
        "red",
        title="Engine died",
        text="an engine of {{model}} on {{instance}}",
        tags="model",
    ),
    Annotation(
        "Alerts",
        'ALERTS{alertstate="firing",alertname=~"Wattgate.*"}',
        "orange",
        title="{{alertname}}",
        text="{{severity}} {{model}} {{instance}}",
        tags="alertname,severity",
    ),
)


def _panel(panel: Panel, row_length: int) -> stat.Panel | timeseries.Panel:
    if panel.stat:
        built: stat.Panel | timeseries.Panel = stat.Panel().height(4).span(24 // row_length)
    else:
        graph = timeseries.Panel().height(8).span(24 if panel.wide else 8).fill_opacity(12).line_width(1)
        if panel.stacked:
            graph = graph.stacking(common.StackingConfig().mode("normal"))
        built = graph.min(0) if panel.unit != "joule" else graph
    built = built.title(panel.title).unit(panel.unit).datasource(SOURCE).description(panel.description)
    for number, (expression, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        built = built.with_target(query.datasource(SOURCE))
    return built


def build(page: Page) -> str:
    """The dashboard's JSON."""
    board = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags(["wattgate"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus").label("Prometheus"))
        .with_variable(
            dashboard.QueryVariable("model")
            .label("Model")
            .datasource(SOURCE)
            .query("label_values(wattgate_engine_ready, model)")
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
        .annotations([annotation.built() for annotation in ANNOTATIONS])
    )
    for title, panels in page.rows:
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(_panel(panel, len(panels)))
    made = json.loads(JSONEncoder().encode(board.build()))
    for annotation, built in zip(ANNOTATIONS, made["annotations"]["list"], strict=True):
        built |= annotation.told()
    return json.dumps(made, sort_keys=True, indent=1) + "\n"


def files() -> Iterator[tuple[Path, str]]:
    """Each dashboard's file, with what it should hold."""
    for page in PAGES:
        yield HERE / f"{page.uid.removeprefix('wattgate-')}.json", build(page)


def main() -> int:
    for path, content in files():
        path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
