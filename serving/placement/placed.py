"""Which models run in replicas of their own, and where they are found."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from pydantic import SecretStr

from serving.config import GatewayConfig
from serving.engines.settings import EngineSettings
from serving.engines.vllm import served_name
from serving.models_settings import ModelSettings

INTERNAL_ROUTE = "/internal"


@dataclass(frozen=True, slots=True)
class InternalLink:
    """How the gateway's replicas reach the models' through the proxy."""

    url: str
    """Of the proxy, as this machine reaches it."""
    token: SecretStr
    """Drawn for each run; clients never see it."""


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A model beside others, or one that the gateway has to outlive."""

    name: str
    settings: ModelSettings

    @property
    def apart(self) -> bool:
        """Whether it has replicas of its own; an upstream is a server already."""
        return self.settings.engine.kind != "upstream"

    @property
    def route(self) -> str:
        plain = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        # two names may look the same once they are plain
        return f"{INTERNAL_ROUTE}/{plain}-{zlib.crc32(self.name.encode()):08x}"

    @property
    def application(self) -> str:
        """Name of its Serve application."""
        return f"wattgate-{self.route.rpartition('/')[2]}"

    @property
    def served_names(self) -> tuple[str, ...]:
        """Its own, then those of its adapters."""
        return (self.name, *self.settings.engine.vllm.lora)

    @property
    def engine(self) -> EngineSettings:
        return self.settings.engine.model_copy(update={"served_model_name": self.name})


def placed_models(config: GatewayConfig) -> tuple[PlacedModel, ...]:
    """Empty where the one engine runs in the gateway's replicas."""
    if config.models:
        return tuple(PlacedModel(name, settings) for name, settings in config.models.items())
    if config.fallback is None or config.engine.kind != "vllm":
        return ()
    alone = ModelSettings(
        engine=config.engine.model_copy(update={"served_model_name": None}),
        replicas=config.server.replicas,
        admission=config.admission,
        fallback=config.fallback,
    )
    return (PlacedModel(served_name(config.engine), alone),)


def engine_config(config: GatewayConfig, placed: PlacedModel) -> GatewayConfig:
    """The configuration as the model's own replica sees it: its engine is the engine."""
    return config.model_copy(update={"engine": placed.engine, "models": {}, "fallback": None})
