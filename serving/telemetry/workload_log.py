"""What the gateway was asked, to be driven again: arrival times and lengths; no text, no tenant, no id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.telemetry.ended import Ended
from serving.telemetry.request_log import RequestLog


def workload_log(path: Path, most_bytes: int, on_lost: Callable[[], None] = lambda: None) -> RequestLog:
    """A sink; `wattgate load`, `tune` and `plan` read the file (``serving.tuning.workload_file``)."""
    return RequestLog(path, on_lost, told=line, most_bytes=most_bytes)


def line(request: Ended) -> dict[str, Any] | None:
    """Of answers only: a request that failed has no length to ask for again."""
    prompt, output = request.use.prompt_tokens, request.use.output_tokens
    if request.status != 200 or prompt < 1 or output < 1:
        return None
    fields: dict[str, Any] = {
        "arrived_at_seconds": round(request.started_wall_seconds, 3),
        "prompt_tokens": prompt,
        "output_tokens": output,
    }
    if (request.cache or "").startswith("HIT"):
        fields["hit"] = True
    return fields
