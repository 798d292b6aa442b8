"""Settings of the controller that moves the live cap. Each field is documented beneath it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serving.tuning.controller import ControlSettings
from serving.tuning.slo import Slo


class CapControlSettings(BaseModel):
    """A controller in each replica moves its live cap within bounds, so that a latency promise holds. Live."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    mode: Literal["off", "dry_run", "on"] = "off"
    """off: the cap stays at `admission.max_concurrency`. dry_run: decide and log, change nothing. on: move the cap."""
    slo: tuple[str, ...] = ()
    """The promise: `ttft_p95<=2s` (queue included), `itl_p95<=100ms` (gaps between tokens, as `load` and `tune` bound
    them; an answer that is not streamed, or has several choices, counts with its mean gap), or both. Tighter: smaller
    batches, more joules a token."""
    objective: Literal["mfu", "carbon"] = "mfu"
    """Within the promise the cap is raised as long as that gives more tokens/s, the same model's MFU by another name.
    carbon: while the grid is dirty, within `relaxed_slo`."""
    relaxed_slo: tuple[str, ...] = ()
    """Objective carbon: looser bounds while the grid's intensity is high; a bound of `slo` without one here stays."""
    threshold_grams_per_kwh: float | None = Field(default=None, ge=0)
    """Objective carbon: grid intensity above which `relaxed_slo` holds, until it is below 95 % of this."""
    lowest_cap: int = Field(default=1, ge=1)
    """The cap is never cut below this."""
    highest_cap: int | None = Field(default=None, ge=1)
    """The cap is never raised above this. None: engine.vllm.max_batch; 256 for other engines."""
    window_seconds: float = Field(default=5.0, gt=0)
    """One decision per window. Shorter reacts sooner, on fewer answers; one with under 20 tokens decides nothing."""

    @field_validator("mode", mode="before")
    @classmethod
    def _mode_is_no_boolean(cls, mode: object) -> object:
        # YAML 1.1 reads a bare `off` as false and `on` as true
        return {False: "off", True: "on"}[mode] if isinstance(mode, bool) else mode

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.highest_cap is not None and self.lowest_cap > self.highest_cap:
            raise ValueError(f"lowest_cap {self.lowest_cap} is above highest_cap {self.highest_cap}: lower it")
        if self.mode != "off":
            carbon = self.objective == "carbon"
            if carbon and (not self.relaxed_slo or self.threshold_grams_per_kwh is None):
                raise ValueError("objective carbon needs both relaxed_slo and threshold_grams_per_kwh")
            self.law()
        return self

    def law(self, most_cap: int = 256) -> ControlSettings:
        """What the controller goes by; ``most_cap`` is the engine's own limit.

        Raises:
            BadInput: bounds that are not understood, missing, or not the cap's to hold.
        """
        carbon = self.objective == "carbon"
        highest = most_cap if self.highest_cap is None else min(self.highest_cap, most_cap)
        return ControlSettings(
            Slo.parse(self.slo),
            lowest_cap=min(self.lowest_cap, highest),
            highest_cap=highest,
            carbon_slo=Slo.parse(self.relaxed_slo) if carbon and self.relaxed_slo else None,
            threshold_grams_per_kwh=self.threshold_grams_per_kwh if carbon else None,
            dry_run=self.mode == "dry_run",
        )
