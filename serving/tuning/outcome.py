"""What became of one request, as its client saw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Cost:
    """From the receipt in ``usage.wattgate``; None where the gateway does not know."""

    joules: float | None = None
    operational_grams: float | None = None
    embodied_grams: float | None = None
    price: float | None = None
    """At the operator's prices, in their currency."""
    flops: float | None = None
    method: str | None = None
    cache: str | None = None
    receipt_id: str | None = None
    status: str | None = None
    """provisional: the windows that it worked in were not all closed yet."""

    @property
    def hit(self) -> bool:
        """Whether the response cache answered."""
        return (self.cache or "").startswith("HIT")

    @classmethod
    def of(cls, receipt: Mapping[str, Any]) -> Cost:
        energy = receipt.get("energy_joules") or {}
        parts = [receipt.get("flops_prefill"), receipt.get("flops_decode")]
        known = [part for part in parts if part is not None]
        return cls(
            joules=energy.get("total"),
            operational_grams=receipt.get("operational_grams"),
            embodied_grams=receipt.get("embodied_grams"),
            price=(receipt.get("cost") or {}).get("total"),
            flops=float(sum(known)) if known else None,
            method=receipt.get("method"),
            cache=receipt.get("cache"),
            receipt_id=receipt.get("receipt_id"),
            status=receipt.get("status"),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times are seconds since the run's start. ``intended_seconds`` is when the request should have been sent: all
    latencies count from there, so that a sender or a server that falls behind cannot hide it (coordinated omission).
    """

    intended_seconds: float
    sent_seconds: float
    ended_seconds: float
    first_token_seconds: float | None = None
    token_gaps_seconds: tuple[float, ...] = field(default=())
    """Between frames with content; an engine that is behind may put several tokens into one."""
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None
    """None: a complete answer."""
    cost: Cost = field(default_factory=Cost)

    @property
    def ttft_seconds(self) -> float | None:
        return None if self.first_token_seconds is None else self.first_token_seconds - self.intended_seconds

    @property
    def e2e_seconds(self) -> float:
        return self.ended_seconds - self.intended_seconds

    @property
    def per_token_seconds(self) -> float | None:
        """Mean time of a token after the first; None for answers of one."""
        if self.first_token_seconds is None or self.output_tokens < 2:
            return None
        return (self.ended_seconds - self.first_token_seconds) / (self.output_tokens - 1)
