"""From the configuration to what tells about requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from serving.config import TelemetrySettings
from serving.metrics import Metrics
from serving.operations.drift import Finding
from serving.operations.drift_feed import DriftSink
from serving.operations.drift_references import References
from serving.operations.drift_telling import Telling
from serving.operations.drift_watch import DriftWatch, DriftWatches
from serving.operations.events import EventLog
from serving.telemetry.ended import EndedSink

_WINDOWS = 2
"""In a row, until something is said to have drifted: at twenty requests a second a single one errs each few hours, and
what a neighbour took of the machine for some minutes is no drift."""


def export_finding(metrics: Metrics, finding: Finding) -> None:
    ratio = abs(finding.value) / finding.threshold
    metrics.set("wattgate_drift_ratio", ratio, finding.model or "", finding.what, finding.statistic)


def export_standing(metrics: Metrics, model: str | None, what: str, moved: bool) -> None:
    metrics.set("wattgate_drifted", float(moved), model or "", what)


def telling(metrics: Metrics, events: EventLog) -> Telling:
    return Telling(events.record, partial(export_finding, metrics), partial(export_standing, metrics), _WINDOWS)


def build_drift(
    settings: TelemetrySettings, metrics: Metrics, events: EventLog, references: References
) -> DriftWatches | None:
    """The watch over a replica's traffic."""
    if settings.drift_window_requests == 0:
        return None
    later = ThreadPoolExecutor(1, "drift").submit

    def watch(model: str) -> DriftWatch:
        return DriftWatch(
            telling(metrics, events),
            model,
            size=settings.drift_window_requests,
            later=later,
            references=references,
        )

    return DriftWatches(watch, references)


def build_sinks(
    settings: TelemetrySettings, metrics: Metrics, drift: DriftWatches | None = None
) -> tuple[EndedSink, ...]:
    """None where nothing is configured; each is imported only where it is used."""
    sinks: list[EndedSink] = [DriftSink(drift)] if drift is not None else []
    if settings.request_log is not None:
        from serving.telemetry.request_log import RequestLog

        path = None if settings.request_log == "-" else Path(settings.request_log)
        sinks.append(RequestLog(path, lambda: metrics.add("wattgate_telemetry_lost_total", 1, "request_log")))
    if settings.workload_log is not None:
        from serving.telemetry.workload_log import workload_log

        most_bytes = int(settings.workload_log_megabytes * 1_000_000)
        sinks.append(
            workload_log(
                settings.workload_log,
                most_bytes,
                lambda: metrics.add("wattgate_telemetry_lost_total", 1, "workload_log"),
            )
        )
    if settings.otlp_endpoint is not None:
        from serving.telemetry.spans import otlp_spans

        sinks.append(otlp_spans(settings.otlp_endpoint))
    return tuple(sinks)
