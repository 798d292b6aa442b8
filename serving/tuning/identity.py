"""What a study is of: trials under another workload or another configuration are not comparable with its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from serving.config import GatewayConfig
from serving.tuning.engine_model import EngineModel
from serving.tuning.workload import Workload
from serving.without_secrets import without_secrets

_DIGITS = 16
_NOT_OF_THE_WORK = ("access.", "batches.", "control.", "limits.", "telemetry.", "metering.history.")
"""Who may ask and what is recorded: tune's own gateway has none of it, and the controller is off in it."""
_TRIED = (
    *("admission.max_concurrency", "server.replicas", "engine.vllm.max_batched_tokens", "engine.vllm.dtype"),
    *("engine.vllm.enable_prefix_caching", "engine.vllm.extra.enable-chunked-prefill"),
    "engine.vllm.extra.no-enable-chunked-prefill",
)
"""The knobs; what they are held at is in the space."""
_OF_THE_PLACE = ("server.host", "server.port", "server.metrics_port", "server.cors_origins")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def columns_of(workload: Workload) -> dict[str, str]:
    """A digest of each column, so that a refusal can say which one differs."""
    columns = {
        "arrival times": workload.arrival_seconds,
        "prompt lengths": workload.prompt_tokens,
        "output lengths": workload.output_tokens,
        "shared prefixes": workload.prefix_tokens,
        "repeats": workload.repeat_of,
    }
    texts = json.dumps(workload.texts).encode()
    return {name: digest(np.ascontiguousarray(column).tobytes()) for name, column in columns.items()} | {
        "texts": digest(texts)
    }


def settings_of(config: GatewayConfig) -> dict[str, str]:
    """The settings by dotted key that the figures of a trial may depend on, beside the knobs; no secrets."""
    flat = _flat(without_secrets(config.model_dump())[0], "")
    return {
        key: value
        for key, value in flat.items()
        if key not in (*_TRIED, *_OF_THE_PLACE) and not key.startswith(_NOT_OF_THE_WORK)
    }


def digest_of_engine_model(model: EngineModel) -> str:
    """Of its content: a file of one name may be fitted anew."""
    return digest(json.dumps(asdict(model), sort_keys=True, default=str).encode())


def digest_of(details: Mapping[str, str]) -> str:
    return digest(json.dumps(dict(details), sort_keys=True).encode())


def _flat(value: Any, key: str) -> dict[str, str]:
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for name, item in value.items():
            found |= _flat(item, f"{key}.{name}" if key else str(name))
        return found
    return {key: str(value)}
