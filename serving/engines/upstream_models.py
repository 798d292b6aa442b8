"""What an OpenAI-compatible server says it serves, and under which names it is served on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from serving.engines.base import EngineModel, EngineStartError
from serving.engines.settings import EngineSettings

_LIST_SECONDS = 10.0
"""An upstream busy with long prompts may be slow to list its models."""
_DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_TOLD = ("revision", "config", "weight_bytes_each", "dtype")
_DEFAULT_MODEL = EngineSettings.model_fields["model"].default


class Away(Exception):
    """Why the upstream cannot be used: a sentence's second half, for an operator."""

    def __init__(self, why: str, *, slow: bool = False) -> None:
        super().__init__(why)
        self.slow = slow


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of the upstream's list."""

    max_context_tokens: int | None
    parent: str | None = None
    """Of a LoRA adapter, as vLLM lists it."""
    told: Mapping[str, Any] | None = None
    """What a wattgate engine replica tells the gateway of its model (see ``told_of``)."""


def told_of(model: EngineModel) -> dict[str, Any]:
    """What the gateway has to know of a model in a replica of its own, JSON-ready."""
    return {name: getattr(model, name) for name in _TOLD}


async def list_models(session: aiohttp.ClientSession, base: str) -> dict[str, Listed]:
    """What the upstream serves, by its name there. Raises ``Away`` with what is wrong."""
    try:
        async with (
            asyncio.timeout(_LIST_SECONDS),
            session.get(f"{base}/v1/models", allow_redirects=False) as response,
        ):
            if response.status in (401, 403):
                raise Away("refuses the API key: set engine.upstream.api_key or WATTGATE_UPSTREAM_API_KEY")
            if response.status != 200:
                raise Away(
                    f"answers /v1/models with status {response.status}: "
                    "engine.upstream.url must be the base address of an OpenAI-compatible server"
                )
            listed = orjson.loads(await response.read())
    except TimeoutError:
        raise Away("does not answer in time: is it overloaded, or engine.upstream.url wrong?", slow=True) from None
    except (aiohttp.ClientError, OSError) as error:
        raise Away(f"cannot be reached ({cause(error)}): start it, or correct engine.upstream.url") from None
    except orjson.JSONDecodeError:
        listed = None
    data = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(data, list):
        raise Away("does not list its models as JSON: is engine.upstream.url an OpenAI-compatible server?")
    models = {}
    for entry in data:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            length, parent, told = entry.get("max_model_len"), entry.get("parent"), entry.get("wattgate")
            models[entry["id"]] = Listed(
                length if isinstance(length, int) else None,
                parent if isinstance(parent, str) else None,
                told if isinstance(told, dict) else None,
            )
    if not models:
        raise Away("serves no model: load one there")
    return models


def choose_models(
    settings: EngineSettings, listed: Mapping[str, Listed], config: dict[str, Any] | None
) -> tuple[dict[str, str], tuple[EngineModel, ...]]:
    """Served names to the upstream's own, and the models under their served names.

    ``engine.model`` picks one; else all are served, or, with a served name, the one it can only mean.

    Raises:
        Away: the upstream does not have what is asked for.
    """
    wanted, served = settings.model, settings.served_model_name
    known = ", ".join(listed)
    if wanted != _DEFAULT_MODEL:
        if wanted not in listed:
            raise Away(f"does not serve engine.model {wanted}; it serves {known}")
        names = {served or wanted: wanted}
    elif served is None:
        names = {name: name for name in listed}
    elif served in listed or len(listed) == 1:
        names = {served: served if served in listed else next(iter(listed))}
    else:
        raise Away(f"serves {known}: set engine.model to the one that {served} stands for")
    only = config if len(names) == 1 else None
    dtype = str(only.get("dtype") or only.get("torch_dtype")).removeprefix("torch.") if only else None
    dtype = dtype if dtype in _DTYPE_BYTES else None
    plain = only is not None and "quantization_config" not in only
    served_as = {own: name for name, own in names.items()}
    models = []
    for name, own in names.items():
        model = EngineModel(
            name=name,
            max_context_tokens=listed[own].max_context_tokens,
            revision=settings.revision,
            config=only,
            weight_bytes_each=_DTYPE_BYTES[dtype] if dtype and plain else None,
            dtype=dtype,
            parent=served_as.get(listed[own].parent or ""),
        )
        told = listed[own].told
        models.append(model if told is None else _with(model, told))
    return names, tuple(models)


def _with(model: EngineModel, told: Mapping[str, Any]) -> EngineModel:
    fields: dict[str, Any] = {key: told.get(key) for key in _TOLD}
    return replace(model, **fields)


def base_url(url: str) -> str:
    return url.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def cause(error: Exception | str) -> str:
    if isinstance(error, str):
        return error
    inner = getattr(error, "os_error", None) or error
    return (getattr(inner, "strerror", None) or str(inner).split("\n")[0] or type(error).__name__)[:200]


def model_config(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    file = Path(path).expanduser()
    if file.is_dir():
        file /= "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
        raise EngineStartError(f"engine.upstream.model_config_path {file}: {reason}") from None
    if not isinstance(config, dict):
        raise EngineStartError(f"engine.upstream.model_config_path {file}: not a model's config (a JSON object)")
    return config
