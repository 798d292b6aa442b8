"""A call that has ended, in the metrics and for the history."""

from __future__ import annotations

from collections.abc import Iterable

from metering.work import Served
from serving.call import Call
from serving.meter_link import MeterLink
from serving.metrics import Metrics

UNKNOWN = "unknown"
"""Label of the requests that no model served here was asked for by."""


def begin_accounts(models: Iterable[str], metrics: Metrics) -> None:
    """What alerts take rates of, before the first request."""
    for model in models:
        for kept in ("yes", "no"):
            metrics.begin("wattgate_objective_requests_total", model, kept)
        if model != UNKNOWN:
            metrics.begin("wattgate_time_to_first_token_seconds", model)


def count_request(metrics: Metrics, model: str, tenant: str, endpoint: str, status: str, outcome: str) -> None:
    """A request that has ended, however."""
    metrics.add("wattgate_requests_total", 1, model, tenant, endpoint, status, outcome)
    metrics.add("wattgate_objective_requests_total", 1, model, "no" if status.startswith("5") else "yes")


def account(call: Call, status: str, now: float, *, known: bool, metrics: Metrics, meter: MeterLink) -> None:
    """Count a call that has ended. ``known``: its model is served, and its name not a client's own text."""
    model, usage = call.model, call.usage or {}
    model = model if known else UNKNOWN
    endpoint = call.path.removeprefix("/v1/")
    count_request(metrics, model, call.tenant, endpoint, status, call.outcome.value)
    if not known:
        return
    metrics.observe("wattgate_request_seconds", now - call.received_seconds, model, endpoint)
    output = int(usage.get("completion_tokens") or 0)
    prompt = int(usage.get("prompt_tokens") or 0)
    cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    meter.served(_served(call, model, status, prompt, cached, output))
    if call.outcome.hit:
        metrics.add("wattgate_tokens_total", prompt + output, model, call.tenant, "avoided")
        return
    if call.first_token_seconds is not None:
        metrics.observe("wattgate_time_to_first_token_seconds", call.first_token_seconds - call.received_seconds, model)
        for part, seconds in first_token_parts(call):
            metrics.observe("wattgate_time_to_first_token_part_seconds", seconds, model, part)
        if output > 1:
            spacing = (now - call.first_token_seconds) / (output - 1)
            metrics.observe("wattgate_inter_token_seconds", spacing, model)
    for kind, tokens in (("prompt", prompt - cached), ("cached_prompt", cached), ("output", output)):
        if tokens > 0:
            metrics.add("wattgate_tokens_total", tokens, model, call.tenant, kind)


def first_token_parts(call: Call) -> tuple[tuple[str, float], ...]:
    """The time to the first token by where it went; it adds up to the whole. Nothing without a run of its own."""
    if call.first_token_seconds is None or call.engine_asked_seconds is None:
        return ()
    engine = max(0.0, call.first_token_seconds - call.engine_asked_seconds)
    whole = call.first_token_seconds - call.received_seconds
    # the queue measures its wait by itself: the rest of a short request may come out below nothing
    gateway = max(0.0, whole - call.queue_seconds - engine)
    return ("gateway", gateway), ("queue", call.queue_seconds), ("engine", engine)


def _served(call: Call, model: str, status: str, prompt: int, cached: int, output: int) -> Served:
    """A request that has ended, for the history."""
    failed = int(status != "200")
    if call.hit is None:
        return Served(model, call.tenant, 1, failed, 0, prompt, cached, output)
    spent = call.hit.energy_joules
    return Served(
        model,
        call.tenant,
        requests=1,
        failed=failed,
        hits=1,
        avoided_tokens=prompt + output,
        avoided_flops=call.avoided_flops,
        avoided_joules=call.hit.avoided_joules,
        avoided_grams=call.hit.avoided_grams,
        hit_joules=spent.total if spent is not None else 0.0,
        hit_grams=call.hit.operational_grams or 0.0,
    )
