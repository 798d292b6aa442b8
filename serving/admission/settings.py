"""Settings of the admission queue before an engine."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.admission.queue import QueuePolicy


class AdmissionSettings(BaseModel):
    """How much the engine is given at once. Live: changed without restart."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    max_concurrency: int = Field(default=32, ge=1)
    """The live cap: requests inside the engine at once, the effective batch. At most engine.vllm.max_batch."""
    max_queue: int = Field(default=256, ge=0)
    """Requests waiting for a slot; above it 429 with a computed Retry-After."""
    max_queued_prefill_tokens: int = Field(default=262_144, ge=1)
    """Prompt tokens waiting, estimated at four characters each; above it 429. The time to first token of the last in
    line is at least this over the engine's prefill rate."""
    standard_floor: float = Field(default=0.1, ge=0, le=1)
    """Share of the cap that the standard class is given first while it has requests waiting. Rounded down, but at least
    one slot where the cap has room for it beside the other class's floor and one interactive request: 3 with both."""
    batch_floor: float = Field(default=0.05, ge=0, le=1)
    """The same of the batch class."""
    interactive_reserve: float = Field(default=0.0, ge=0, le=1)
    """Share of the cap kept free for the interactive class: it starts at once, at the cost of throughput."""
    promote_after_seconds: float = Field(default=30.0, gt=0)
    """A request that has waited so long is starved: one admission in four goes to the longest starved."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        self.policy()
        return self

    def policy(self) -> QueuePolicy:
        return QueuePolicy(
            max_queue=self.max_queue,
            max_queued_prefill_tokens=self.max_queued_prefill_tokens,
            standard_floor=self.standard_floor,
            batch_floor=self.batch_floor,
            interactive_reserve=self.interactive_reserve,
            promote_after_seconds=self.promote_after_seconds,
        )
