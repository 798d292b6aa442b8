"""What an operator grants a tenant."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Priority(StrEnum):
    """Classes of the admission queue, the most urgent first."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """0 is the most urgent."""
        return _RANKS[self]

    def at_most(self, granted: Priority) -> Priority:
        """Itself, or ``granted`` where that is less urgent."""
        return self if self.rank >= granted.rank else granted


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class LimitSettings(_Section):
    """What a tenant may use, over all replicas. None: without limit."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """A bucket of this many requests that refills over a minute."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """The same of prompt and output tokens; an estimate is taken when a request comes, its real use when it ends."""
    concurrent_requests: int | None = Field(default=None, ge=1)
    """Requests under way at once, streams and unary ones."""
    grams_per_day: float | None = Field(default=None, gt=0)
    """Carbon budget, gCO2e (operational and embodied) a UTC day."""
    grams_per_month: float | None = Field(default=None, gt=0)
    """Carbon budget, gCO2e a UTC calendar month."""
    carbon: Literal["hard", "soft"] = "hard"
    """hard: a spent carbon budget refuses requests until its period ends. soft: it is only told and counted."""

    @property
    def any(self) -> bool:
        return any(value is not None for name, value in self if name != "carbon")


class TenantSettings(_Section):
    """One tenant's grants."""

    models: tuple[str, ...] | None = None
    """Models it may ask for; None: all of them."""
    priority: Priority = Priority.STANDARD
    """The class of its requests, and the most urgent one it may ask for (`x-wattgate-priority`, `service_tier`)."""
    limits: LimitSettings = LimitSettings()
    """Rates and budgets."""

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models
