"""``GET /v1/usage``: what a tenant used, what it may still use, what the cache saved it."""

from __future__ import annotations

from typing import Any

from serving.limits.book import MICRO, NANO, Use, periods
from serving.tenancy.tenant import LimitSettings


def usage_page(
    tenant: str, day: Use, month: Use, limits: LimitSettings, scope: str, method: str, wall_seconds: float
) -> dict[str, Any]:
    """``scope``: gateway (all replicas) or replica (this one's counts: Redis is away or there is none).
    ``method``: how the engine's work is obtained, measured, modelled or simulated.
    """
    today, this_month = periods(wall_seconds)
    return {
        "object": "usage",
        "tenant": tenant,
        "scope": scope,
        "method": method,
        "day": {"period": f"{today[:4]}-{today[4:6]}-{today[6:]}", **_figures(day)},
        "month": {"period": f"{this_month[:4]}-{this_month[4:]}", **_figures(month)},
        "limits": {name: value for name, value in limits if value is not None},
        "carbon_budget": {
            "day": _budget(limits.grams_per_day, day),
            "month": _budget(limits.grams_per_month, month),
        },
        "note": "Settled requests, by their final receipts (those of the last seconds by their provisional ones); "
        "the UTC day and month. Avoided is net: hits that cost more than the run they replaced are taken off.",
    }


def _figures(use: Use) -> dict[str, Any]:
    return {
        "requests": use.requests,
        "failed": use.failed,
        "tokens": {
            "prompt": use.prompt_tokens,
            "cached_prompt": use.cached_prompt_tokens,
            "output": use.output_tokens,
            "total": use.tokens,
        },
        "energy_joules": use.microjoules / MICRO,
        "operational_grams": use.operational_nanograms / NANO,
        "embodied_grams": use.embodied_nanograms / NANO,
        **({"cost": use.nanocost / NANO} if use.nanocost else {}),
        "cache": {
            "hits": use.cache_hits,
            "avoided_tokens": use.avoided_tokens,
            "avoided_joules": use.avoided_microjoules / MICRO,
            "avoided_grams": use.avoided_nanograms / NANO,
        },
    }


def _budget(grams: float | None, use: Use) -> dict[str, float] | None:
    if grams is None:
        return None
    spent = use.nanograms / NANO
    return {"limit_grams": grams, "spent_grams": spent, "remaining_grams": grams - spent}
