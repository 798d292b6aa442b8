"""From the configuration to what tells about requests."""

from __future__ import annotations

from pathlib import Path

from serving.config import TelemetrySettings
from serving.metrics import Metrics
from serving.telemetry.ended import EndedSink


def build_sinks(settings: TelemetrySettings, metrics: Metrics) -> tuple[EndedSink, ...]:
    """None where nothing is configured; each is imported only where it is used."""
    sinks: list[EndedSink] = []
    if settings.request_log is not None:
        from serving.telemetry.request_log import RequestLog

        path = None if settings.request_log == "-" else Path(settings.request_log)
        sinks.append(RequestLog(path, lambda: metrics.add("wattgate_telemetry_lost_total", 1, "request_log")))
    if settings.otlp_endpoint is not None:
        from serving.telemetry.spans import otlp_spans

        sinks.append(otlp_spans(settings.otlp_endpoint))
    return tuple(sinks)
