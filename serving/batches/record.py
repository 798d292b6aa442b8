"""A batch's state, as it is kept and as OpenAI's batch object tells it."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from serving.limits.book import MICRO, NANO, NOTHING, Use

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
Ending = Literal["failed", "completed", "expired", "cancelled"]


class LineError(BaseModel):
    """What is wrong with the input."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    """Counted from 1; None where it is about the file."""


class Batch(BaseModel):
    """Times are seconds since the epoch. ``cancelling`` is never kept: it is a wish beside the batch, until it ends."""

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: dict[str, str] | None = None
    status: Status = "validating"
    ending: Ending | None = None
    """How it will end, once that is decided: then no line is run any more."""
    errors: tuple[LineError, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    expires_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    use: Use = NOTHING
    """Of the lines that are done, by their provisional receipts."""

    @property
    def ended(self) -> bool:
        return self.status in get_args(Ending)

    def with_(self, **changes: Any) -> Batch:
        return self.model_copy(update=changes)

    def as_dict(self) -> dict[str, Any]:
        """OpenAI's batch object; ``usage.wattgate`` is what its lines took."""
        errors = {"object": "list", "data": [error.model_dump() for error in self.errors]} if self.errors else None
        hidden = {"tenant", "ending", "errors", "total", "completed", "failed", "use"}
        use = self.use
        return {
            **self.model_dump(exclude=hidden),
            "object": "batch",
            "errors": errors,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": use.prompt_tokens,
                "input_tokens_details": {"cached_tokens": use.cached_prompt_tokens},
                "output_tokens": use.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": use.tokens,
                "wattgate": {
                    "energy_joules": use.microjoules / MICRO,
                    "operational_grams": use.operational_nanograms / NANO,
                    "embodied_grams": use.embodied_nanograms / NANO,
                    "cache_hits": use.cache_hits,
                },
            },
        }


def use_of_answer(body: Any) -> Use:
    """What one line's answer says that it took."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return NOTHING
    receipt = usage.get("wattgate") or {}
    joules = (receipt.get("energy_joules") or {}).get("total") or 0.0
    return Use(
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        cached_prompt_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or 0),
        microjoules=round(joules * MICRO),
        operational_nanograms=round((receipt.get("operational_grams") or 0.0) * NANO),
        embodied_nanograms=round((receipt.get("embodied_grams") or 0.0) * NANO),
        cache_hits=int(str(receipt.get("cache", "")).startswith("HIT")),
    )
