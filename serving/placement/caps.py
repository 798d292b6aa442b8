"""The queues before the engines, from the live settings of admission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.admission.queue import AdmissionQueue, QueuePolicy
from serving.admission.settings import AdmissionSettings
from serving.config import GatewayConfig
from serving.engines.settings import EngineSettings
from serving.placement.placed import PlacedModel, placed_models

THE_ENGINE = ""
"""Stands for the one engine in the gateway's replicas, whatever it serves."""
_ELSEWHERE = 256


@dataclass(frozen=True, slots=True)
class CapSettings:
    requests: int
    """Of one gateway replica."""
    policy: QueuePolicy


def cap_settings(config: GatewayConfig) -> dict[str, CapSettings]:
    """By model; of a model with replicas of its own, a gateway replica's part of all that they take."""
    placed = placed_models(config)
    if not placed:
        return {THE_ENGINE: CapSettings(config.admission.max_concurrency, config.admission.policy())}
    return {
        one.name: CapSettings(_share(one, config.server.replicas), one.settings.admission.policy()) for one in placed
    }


def _share(placed: PlacedModel, gateways: int) -> int:
    return _share_of(placed.settings.admission.max_concurrency, placed, gateways)


def _share_of(each: int, placed: PlacedModel, gateways: int) -> int:
    return -(-each * placed.settings.replicas // gateways) if placed.apart else each


def most_caps(config: GatewayConfig) -> dict[str, int]:
    """What each engine takes at once at most, by model; of one with replicas of its own, a gateway replica's part."""
    placed = placed_models(config)
    if not placed:
        return {THE_ENGINE: _most(config.engine)}
    return {one.name: _share_of(_most(one.settings.engine), one, config.server.replicas) for one in placed}


def _most(engine: EngineSettings) -> int:
    # other servers' limits are not known here
    return engine.vllm.max_batch if engine.kind == "vllm" else _ELSEWHERE


def configured_cap(config: GatewayConfig, model: str) -> int:
    """`admission.max_concurrency` of the model."""
    return (
        config.models[model].admission.max_concurrency if model in config.models else config.admission.max_concurrency
    )


def highest_cap(config: GatewayConfig, model: str) -> int:
    """What its engine takes at once at most, in the terms of `admission.max_concurrency`."""
    engine = config.models[model].engine if model in config.models else config.engine
    return max(_most(engine), configured_cap(config, model))


def part_of(cap: int, config: GatewayConfig, model: str) -> int:
    """A gateway replica's part where `admission.max_concurrency` of the model were ``cap``."""
    placed = next((one for one in placed_models(config) if one.name == model), None)
    return cap if placed is None else _share_of(cap, placed, config.server.replicas)


def build_caps(config: GatewayConfig) -> dict[str, AdmissionQueue]:
    """A queue for each engine."""
    return {name: AdmissionQueue(cap.requests, policy=cap.policy) for name, cap in cap_settings(config).items()}


def by_served_name(config: GatewayConfig, caps: Mapping[str, AdmissionQueue]) -> dict[str, AdmissionQueue]:
    """Adapters wait in their model's queue: they share its batch."""
    return {name: caps[one.name] for one in placed_models(config) for name in one.served_names}


def with_live_admission(config: GatewayConfig, live: Mapping[str, Any]) -> GatewayConfig:
    """The configuration with the admission of ``live_settings`` in it; models that are not in it keep theirs."""
    models = {
        name: model.model_copy(
            update={"admission": AdmissionSettings.model_validate(live["models"][name]["admission"])}
        )
        if name in live.get("models", {})
        else model
        for name, model in config.models.items()
    }
    admission = AdmissionSettings.model_validate(live["admission"])
    return config.model_copy(update={"admission": admission, "models": models})
