"""Settings of the models that one gateway serves side by side, each in replicas of its own."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.admission.settings import AdmissionSettings
from serving.engines.settings import EngineSettings, UpstreamSettings


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FallbackSettings(_Section):
    """Who answers while a model's own engine is away, as long as no byte of the answer has left."""

    model: str | None = None
    """With `upstream`: the name asked for there; None: the one it serves. Without: another name under `models`."""
    upstream: UpstreamSettings | None = None
    """An OpenAI-compatible server elsewhere."""

    @model_validator(mode="after")
    def _someone(self) -> Self:
        if self.model is None and self.upstream is None:
            raise ValueError("name a fallback: `model`, another name under models, or `upstream`, with its url")
        return self


class ModelSettings(_Section):
    """One of several models."""

    engine: EngineSettings = EngineSettings()
    """The same as the section `engine`. kind upstream is asked directly; the others run in replicas of their own."""
    replicas: int = Field(default=1, ge=1)
    """Engine replicas; each loads the model."""
    admission: AdmissionSettings = AdmissionSettings()
    """The same as the section `admission`; `max_concurrency` is that of one engine replica. Live."""
    fallback: FallbackSettings | None = None
    """The same as the section `fallback`."""

    @model_validator(mode="after")
    def _named_by_its_key(self) -> Self:
        if self.engine.served_model_name is not None:
            raise ValueError("engine.served_model_name: a model under `models` is served under its key; leave it out")
        check_cap(self.engine, self.admission)
        return self


def check_cap(engine: EngineSettings, admission: AdmissionSettings) -> None:
    """Raises ``ValueError`` for a live cap above the batch of vLLM."""
    if engine.kind == "vllm" and admission.max_concurrency > engine.vllm.max_batch:
        raise ValueError(
            f"admission.max_concurrency {admission.max_concurrency} is above engine.vllm.max_batch "
            f"{engine.vllm.max_batch}: raise max_batch or lower the cap"
        )
