"""The metric catalogue: every series the gateway exports is declared here, once.

The README's table and the collectors are both made from ``CATALOGUE``. Base units, prefix ``wattgate_``;
labels are bounded sets: never a request id, never text from a client.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Kind = Literal["counter", "gauge", "histogram"]
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_OVERHEAD_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    name: str
    """As scraped; counters end in ``_total``."""
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()
    merge: Literal["livesum", "livemostrecent", "livemax"] = "livesum"
    """Gauges only: how the replicas of a node are put together."""


CATALOGUE: tuple[MetricSpec, ...] = (
    MetricSpec(
        "wattgate_requests_total",
        "counter",
        "requests",
        ("model", "tenant", "endpoint", "status", "cache"),
        "Requests ended, by HTTP status (499: the client went) and cache outcome.",
    ),
    MetricSpec(
        "wattgate_objective_requests_total",
        "counter",
        "requests",
        ("model", "kept"),
        "The same requests, by whether the objective of few errors was kept: no for a server's error (5xx). Both stand "
        "at 0 from the start, so that a rate sees a first burst of errors whole.",
    ),
    MetricSpec(
        "wattgate_admission_refusals_total",
        "counter",
        "requests",
        ("model", "priority", "reason"),
        "Requests that admission refused for want of room: queue_full, deadline_unmeetable, deadline_before_run (by "
        "the model's queue), too_many_requests (by the replica, before anything is known of them). A tenant's own "
        "limits: `wattgate_limit_refusals_total`.",
    ),
    MetricSpec(
        "wattgate_page_requests_total",
        "counter",
        "requests",
        ("endpoint", "method", "status"),
        "Requests ended of the pages, which no model answers (models, files, batches, usage, health), by route.",
    ),
    MetricSpec(
        "wattgate_tokens_total",
        "counter",
        "tokens",
        ("model", "tenant", "kind"),
        "Tokens: prompt (computed), cached_prompt (reused keys and values), output, avoided (served by the cache).",
    ),
    MetricSpec(
        "wattgate_request_seconds",
        "histogram",
        "seconds",
        ("model", "endpoint"),
        "From the request's first byte to the answer's last (OpenTelemetry: gen_ai.server.request.duration).",
        _SECONDS,
    ),
    MetricSpec(
        "wattgate_time_to_first_token_seconds",
        "histogram",
        "seconds",
        ("model",),
        "From the request's arrival to its first token (OpenTelemetry: gen_ai.server.time_to_first_token).",
        _SECONDS,
    ),
    MetricSpec(
        "wattgate_time_to_first_token_part_seconds",
        "histogram",
        "seconds",
        ("model", "part"),
        "The same by where it went: queue (waiting for a slot), engine (from there to the first token), gateway (the "
        "rest). The three add up to it.",
        (*_OVERHEAD_SECONDS[:3], *_SECONDS),
    ),
    MetricSpec(
        "wattgate_inter_token_seconds",
        "histogram",
        "seconds",
        ("model",),
        "Mean time per output token after the first, one observation a request "
        "(OpenTelemetry: gen_ai.server.time_per_output_token).",
        _SECONDS,
    ),
    MetricSpec(
        "wattgate_queue_seconds",
        "histogram",
        "seconds",
        ("model",),
        "Time a request waited for a slot of the live cap.",
        _SECONDS,
    ),
    MetricSpec(
        "wattgate_embedding_batch_texts",
        "histogram",
        "texts",
        ("model",),
        "Texts in one pass of the embedding model, of one request or several.",
        (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
    ),
    MetricSpec(
        "wattgate_overhead_seconds",
        "histogram",
        "seconds",
        ("path",),
        "Time inside the gateway before the engine was asked (path engine) or the hit was ready (path cache), "
        "queue excluded.",
        _OVERHEAD_SECONDS,
    ),
    MetricSpec(
        "wattgate_inflight_requests",
        "gauge",
        "requests",
        ("endpoint",),
        "Requests inside the gateway now, from the first byte read to the last one sent: read, queued, run or sent.",
    ),
    MetricSpec("wattgate_running_requests", "gauge", "requests", ("model",), "Requests inside the engine now."),
    MetricSpec("wattgate_waiting_requests", "gauge", "requests", ("model",), "Requests waiting for a slot now."),
    MetricSpec(
        "wattgate_concurrency_cap",
        "gauge",
        "requests",
        ("model",),
        "The live cap on requests inside the engine, summed over replicas.",
    ),
    MetricSpec(
        "wattgate_control_wanted_cap",
        "gauge",
        "requests",
        ("model",),
        "The cap that the controller wants, summed over replicas; in a dry run it is not the cap in force.",
    ),
    MetricSpec(
        "wattgate_control_decisions_total",
        "counter",
        "decisions",
        ("model", "mode", "move", "reason"),
        "The controller's decisions, one a window: move (raise, cut, stay) and why; mode on or dry_run.",
    ),
    MetricSpec(
        "wattgate_control_windows_total",
        "counter",
        "windows",
        ("model", "kept"),
        "The controller's windows with tokens or passed deadlines, by whether every bound of the promise held (yes, "
        "no); one in which a bounded figure was not seen counts in neither.",
    ),
    MetricSpec(
        "wattgate_control_bound_seconds",
        "gauge",
        "seconds",
        ("model", "metric"),
        "The promise in force, p95 of ttft and itl; the relaxed one while the grid is dirty.",
        (),
        "livemax",
    ),
    MetricSpec(
        "wattgate_control_seen_seconds",
        "gauge",
        "seconds",
        ("model", "metric"),
        "The same p95 in the controller's last window, of the replica where it is highest.",
        (),
        "livemax",
    ),
    MetricSpec("wattgate_engine_ready", "gauge", "replicas", ("model",), "Replicas whose engine can answer."),
    MetricSpec(
        "wattgate_engine_asleep",
        "gauge",
        "replicas",
        ("model",),
        "Replicas whose engine is unloaded after idle time; they are ready, and the next request loads it.",
    ),
    MetricSpec(
        "wattgate_engine_wake_seconds",
        "histogram",
        "seconds",
        ("model",),
        "Loading an engine again after it was unloaded.",
        _SECONDS,
    ),
    MetricSpec(
        "wattgate_engine_asleep_seconds_total", "counter", "seconds", ("model",), "Time that engines were unloaded."
    ),
    MetricSpec(
        "wattgate_engine_asleep_joules_total",
        "counter",
        "joules",
        ("model", "kind"),
        "Energy of the engine's own devices, and of the host where it is alone, from unloading to ready again: "
        "expected (idle watts before it, loaded), metered (while unloaded), wake (while loading). Saved: expected - "
        "metered - wake. Not known, and not here, where others work on the same devices.",
    ),
    MetricSpec(
        "wattgate_engine_deaths_total", "counter", "engines", ("model",), "Engines found dead; each is replaced."
    ),
    MetricSpec(
        "wattgate_fallback_total",
        "counter",
        "requests",
        ("model", "fallback"),
        "Requests that another model answered, because the engine of the one asked for was away.",
    ),
    MetricSpec(
        "wattgate_cache_lookups_total",
        "counter",
        "lookups",
        ("outcome", "tier", "why"),
        "Cache lookups by outcome (HIT-EXACT, HIT-SEMANTIC, MISS, BYPASS), tier and reason.",
    ),
    MetricSpec(
        "wattgate_cache_lookup_seconds",
        "histogram",
        "seconds",
        ("outcome",),
        "Time of a cache lookup.",
        _OVERHEAD_SECONDS,
    ),
    MetricSpec(
        "wattgate_cache_stores_total",
        "counter",
        "answers",
        ("tier", "why"),
        "Answers offered to the cache; why: stored, or the rule that refused.",
    ),
    MetricSpec(
        "wattgate_cache_faults_total",
        "counter",
        "faults",
        ("operation", "fault"),
        "What the cache lost to a fault of its store; the request was answered all the same.",
    ),
    MetricSpec(
        "wattgate_cache_shared_total",
        "counter",
        "requests",
        ("reason",),
        "Requests served by the run of an identical one: flight (under way in the same replica), replica (in another).",
    ),
    MetricSpec(
        "wattgate_cache_shadow_total",
        "counter",
        "verifications",
        ("outcome",),
        "Semantic verdicts verified against the model: right, wrong, grey_right and grey_wrong (let through by the "
        "grey zone, no verdict of the threshold's), skipped (no room), failed.",
    ),
    MetricSpec(
        "wattgate_cache_grey_zone_total",
        "counter",
        "questions",
        ("outcome",),
        "Neighbours refused by the threshold alone: yes, no, unclear (what the model said), too_dear, no_room.",
    ),
    MetricSpec(
        "wattgate_cache_false_hit_ratio",
        "gauge",
        "ratio",
        ("kind",),
        "Wrong among the recent semantic hits that were verified, the comparator's own error taken out: estimate, and "
        "its bounds lower, upper (95 % Wilson). Replicas share their labels, so each reports the same.",
        (),
        "livemostrecent",
    ),
    MetricSpec(
        "wattgate_cache_max_wrong_ratio",
        "gauge",
        "ratio",
        (),
        "Budget for wrong answers among the semantic hits (`cache.max_wrong`), where hits are verified.",
        (),
        "livemostrecent",
    ),
    MetricSpec(
        "wattgate_cache_comparator_error_ratio",
        "gauge",
        "ratio",
        ("kind",),
        "How the comparison of answers errs: false_alarm (two runs of one request told apart), miss (answers to "
        "questions that a guard kept apart taken for the same).",
        (),
        "livemostrecent",
    ),
    MetricSpec(
        "wattgate_cache_threshold_ratio",
        "gauge",
        "ratio",
        (),
        "Score that a semantic neighbour has to exceed to be served, the strictest of the replicas; policy vcache has "
        "none (NaN).",
        (),
        "livemax",
    ),
    MetricSpec(
        "wattgate_cache_judgements_total",
        "counter",
        "judgements",
        ("why", "guard"),
        "Verdicts on semantic neighbours; guard names the one that refused.",
    ),
    MetricSpec(
        "wattgate_cache_swept_total", "counter", "entries", ("reason",), "Index entries removed: orphan, evicted."
    ),
    MetricSpec(
        "wattgate_avoided_joules_total",
        "counter",
        "joules",
        ("model", "tenant"),
        "Energy that cache hits avoided: the original's working energy minus the lookup's own.",
    ),
    MetricSpec(
        "wattgate_avoided_grams_total", "counter", "gCO2e", ("model", "tenant"), "Operational carbon of the same."
    ),
    MetricSpec(
        "wattgate_avoided_cost_total",
        "counter",
        "currency",
        ("model", "tenant"),
        "Cost of the electricity of the same, in the currency of your prices; none without prices.",
    ),
    MetricSpec(
        "wattgate_excess_joules_total",
        "counter",
        "joules",
        ("model", "tenant"),
        "Energy of cache hits beyond the run that each replaced, where a hit cost more: to be taken off the avoided.",
    ),
    MetricSpec(
        "wattgate_excess_grams_total", "counter", "gCO2e", ("model", "tenant"), "Operational carbon of the same."
    ),
    MetricSpec(
        "wattgate_excess_cost_total",
        "counter",
        "currency",
        ("model", "tenant"),
        "Cost of the electricity of the same, in the currency of your prices; none without prices.",
    ),
    MetricSpec(
        "wattgate_hit_joules_total",
        "counter",
        "joules",
        ("model", "tenant"),
        "Modelled energy of the cache hits themselves (lookup CPU time x watts per core).",
    ),
    MetricSpec(
        "wattgate_limit_refusals_total",
        "counter",
        "requests",
        ("tenant", "reason"),
        "Requests that a tenant's limit refused: requests, tokens, concurrent, carbon_day, carbon_month.",
    ),
    MetricSpec(
        "wattgate_limit_overdrawn_total",
        "counter",
        "requests",
        ("tenant", "reason"),
        "Requests let in although a soft carbon budget of their tenant is spent: carbon_day, carbon_month.",
    ),
    MetricSpec(
        "wattgate_limit_faults_total",
        "counter",
        "faults",
        ("operation",),
        "What the quota store could not do: reserve (then counted by the replica, or refused where strict), settle "
        "(sent again), dropped (a settlement lost), usage, breaker; finals (asked for again), final_missing (a request "
        "keeps its provisional figures).",
    ),
    MetricSpec(
        "wattgate_batches_total",
        "counter",
        "batches",
        ("tenant", "status"),
        "Batches at their end: completed, failed (its input), expired, cancelled.",
    ),
    MetricSpec("wattgate_batches_running", "gauge", "batches", (), "Batches whose lines are being run."),
    MetricSpec(
        "wattgate_batch_lines_total",
        "counter",
        "lines",
        ("tenant", "outcome"),
        "Lines of batches: completed, failed, expired; tried_again counts attempts that found no room or a fault.",
    ),
    MetricSpec(
        "wattgate_batch_faults_total",
        "counter",
        "faults",
        ("operation",),
        "Of batches: disk (tried again until it takes it), overtaken (its lock in a shared folder was lost: another "
        "replica goes on), run (a defect; the batch is tried again in a minute).",
    ),
    MetricSpec(
        "wattgate_watch_faults_total",
        "counter",
        "faults",
        ("operation",),
        "What a replica looks after once a second and could not: keys, caps, engines, gauges. It is tried again.",
    ),
    MetricSpec(
        "wattgate_telemetry_lost_total", "counter", "lines", ("kind",), "Request log lines that could not be written."
    ),
    MetricSpec(
        "wattgate_meter_faults_total",
        "counter",
        "faults",
        ("fault",),
        "Metering that did not work as it should: reports kept back, dropped, over-unity MFU, meter gaps.",
    ),
    MetricSpec(
        "wattgate_flops_total",
        "counter",
        "FLOP",
        ("model", "tenant", "phase"),
        "Model FLOPs executed, by phase (prefill, decode); node.",
    ),
    MetricSpec(
        "wattgate_possible_flops_total",
        "counter",
        "FLOP",
        ("model", "tenant"),
        "Peak FLOP/s x the device time attributed: FLOPs over these are the MFU; none where the peak is unknown; node.",
    ),
    MetricSpec(
        "wattgate_executed_tokens_total",
        "counter",
        "tokens",
        ("model", "tenant", "phase"),
        "Tokens that an engine worked on, those of cut answers too, by phase (prefill, reused, decode); node.",
    ),
    MetricSpec(
        "wattgate_device_seconds_total",
        "counter",
        "seconds",
        ("model", "tenant"),
        "Device time attributed to requests; node.",
    ),
    MetricSpec(
        "wattgate_unreserved_device_seconds_total",
        "counter",
        "seconds",
        ("model", "tenant"),
        "Of the device time, what was booked under an idle policy other than `reserved`: it has no SCI score; node.",
    ),
    MetricSpec(
        "wattgate_roofline_seconds_total",
        "counter",
        "seconds",
        ("model", "tenant", "batch"),
        "Least time for the work on the device, by batch: shared (as it ran), alone (each sequence by itself); node.",
    ),
    MetricSpec(
        "wattgate_avoided_flops_total",
        "counter",
        "FLOP",
        ("model", "tenant", "cause"),
        "FLOPs that did not run, by cause: response (an answer from the cache), prefix (reused keys and values); node.",
    ),
    MetricSpec(
        "wattgate_energy_joules_total",
        "counter",
        "joules",
        ("component", "boundary", "method", "source"),
        "Energy of the node's metered components, as metered or modelled; node.",
    ),
    MetricSpec(
        "wattgate_request_joules_total",
        "counter",
        "joules",
        ("model", "tenant", "boundary"),
        "Energy booked to requests, final, by boundary (accelerator, host, idle, overhead); node.",
    ),
    MetricSpec(
        "wattgate_request_grams_total",
        "counter",
        "gCO2e",
        ("model", "tenant", "scope"),
        "Carbon booked to requests, final, by scope: operational (energy x PUE x average intensity), "
        "operational_marginal (the same by a marginal source) and embodied; node.",
    ),
    MetricSpec(
        "wattgate_request_cost_total",
        "counter",
        "currency",
        ("model", "tenant", "cause"),
        "Cost of the same, by cause (devices, electricity), in the currency of your prices; none without prices; node.",
    ),
    MetricSpec(
        "wattgate_unattributed_joules_total",
        "counter",
        "joules",
        ("component",),
        "Energy that no request and no idle time can be given: drawn in gaps of the meter, its own restarts among "
        "them; node.",
    ),
    MetricSpec(
        "wattgate_idle_joules_total",
        "counter",
        "joules",
        ("component",),
        "Energy booked as idle, before it is shared out by policy; node.",
    ),
    MetricSpec(
        "wattgate_mfu_ratio",
        "gauge",
        "ratio",
        ("model",),
        "MFU of the last closed window, its idle time included: 0 in one without work (while it works: "
        "`wattgate_flops_total` over `wattgate_possible_flops_total`); node.",
        (),
        "livemostrecent",
    ),
    MetricSpec(
        "wattgate_mbu_ratio",
        "gauge",
        "ratio",
        ("model",),
        "Memory bandwidth used in the last closed window, over the device's: decode is bound by it. 0 in a window "
        "without work; node.",
        (),
        "livemostrecent",
    ),
    MetricSpec(
        "wattgate_intensity_grams_per_kwh",
        "gauge",
        "g/kWh",
        ("zone", "source", "signal", "quality"),
        "Grid intensity in use, average or marginal by signal; NaN under labels no longer in use; node.",
        (),
        "livemostrecent",
    ),
    MetricSpec(
        "wattgate_carbon_free_ratio",
        "gauge",
        "ratio",
        ("zone", "source"),
        "Carbon-free share of the grid's generation, where the source gives it; node.",
        (),
        "livemostrecent",
    ),
    MetricSpec(
        "wattgate_power_watts",
        "gauge",
        "watts",
        ("component",),
        "Mean power of the last closed window; node.",
        (),
        "livemostrecent",
    ),
    MetricSpec(
        "wattgate_books_difference_joules",
        "gauge",
        "joules",
        ("component",),
        "Metered minus booked energy; anything but zero is a defect; node.",
        (),
        "livemostrecent",
    ),
    MetricSpec("wattgate_event_loop_tasks", "gauge", "tasks", (), "Tasks on the gateway replicas' event loops."),
    MetricSpec(
        "wattgate_events_total",
        "counter",
        "events",
        ("kind",),
        "Changes recorded, by kind: model, config, cap, cache_epoch, intensity_source, drift (texts: /v1/events).",
    ),
    MetricSpec(
        "wattgate_event_timestamp_seconds",
        "gauge",
        "seconds",
        ("kind", "model", "text"),
        "When what changed, Unix time: the node's last 20 events of the last hour, for annotations; node.",
        (),
        "livemostrecent",
    ),
    MetricSpec(
        "wattgate_drifted",
        "gauge",
        "",
        ("model", "what"),
        "1 from when it is told that this moved away from its reference until it is back, or has another reference.",
        (),
        "livemax",
    ),
    MetricSpec(
        "wattgate_drift_ratio",
        "gauge",
        "ratio",
        ("model", "what", "statistic"),
        "Statistic of the last window against its reference, over its threshold; above 1 it is more than chance. "
        "No model: of all of them.",
        (),
        "livemax",
    ),
    MetricSpec(
        "wattgate_event_loop_lag_seconds",
        "gauge",
        "seconds",
        (),
        "Longest delay of a timer in the last second.",
        (),
        "livemax",
    ),
)


class Metrics:
    """Collectors for ``CATALOGUE`` on one registry; children are cached by their label values."""

    def __init__(self, registry: CollectorRegistry, catalogue: Iterable[MetricSpec] = CATALOGUE) -> None:
        self.registry = registry
        self._collectors = {spec.name: _collector(spec, registry) for spec in catalogue}
        self._children: dict[tuple[str, ...], Counter | Gauge | Histogram] = {}

    def _child(self, name: str, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            collector = self._collectors[name]
            child = self._children[key] = collector.labels(*labels) if labels else collector
        return child

    def begin(self, name: str, *labels: str) -> None:
        """Show a series before anything has happened: a rate does not see what one had when it was first scraped."""
        self._child(name, labels)

    def add(self, name: str, value: float, *labels: str) -> None:
        self._child(name, labels).inc(value)  # type: ignore[union-attr]

    def set(self, name: str, value: float, *labels: str) -> None:
        self._child(name, labels).set(value)  # type: ignore[union-attr]

    def observe(self, name: str, value: float, *labels: str) -> None:
        self._child(name, labels).observe(value)  # type: ignore[union-attr]

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self._collectors)


def _collector(spec: MetricSpec, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if spec.kind == "counter":
        return Counter(spec.name, spec.meaning, spec.labels, registry=registry)
    if spec.kind == "gauge":
        return Gauge(spec.name, spec.meaning, spec.labels, registry=registry, multiprocess_mode=spec.merge)
    return Histogram(spec.name, spec.meaning, spec.labels, registry=registry, buckets=spec.buckets)


def catalogue_markdown() -> str:
    """The table in the README."""
    rows = ["| metric | type | unit | labels | meaning |", "| --- | --- | --- | --- | --- |"]
    rows += [
        f"| `{spec.name}` | {spec.kind} | {spec.unit} | {', '.join(spec.labels) or '-'} | {spec.meaning} |"
        for spec in CATALOGUE
    ]
    return "\n".join(rows)
