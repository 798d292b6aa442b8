"""A LoRA adapter's own matrices, from its configuration in PEFT's form (``adapter_config.json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metering.errors import BadInput
from metering.shape import LoraTarget, ModelArchitecture

_TARGETS: Mapping[str, LoraTarget] = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o",
    "gate_proj": "gate", "up_proj": "up", "down_proj": "down",
}  # fmt: skip
_OF_THEIR_OWN = ("rank_pattern", "layers_to_transform", "modules_to_save")
"""Settings by which layers differ: no one rank tells their FLOPs."""


def load_adapter(folder: str | Path) -> dict[str, Any]:
    """An adapter's configuration, from its folder.

    Raises:
        BadInput: there is none, or it is not PEFT's.
    """
    path = Path(folder) / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; name the folder of a LoRA adapter") from None
    except ValueError:
        raise BadInput(f"{path} is not JSON") from None
    if not isinstance(config, dict):
        raise BadInput(f"{path} holds no settings of an adapter")
    return config


def with_adapter(architecture: ModelArchitecture, config: Mapping[str, Any]) -> ModelArchitecture:
    """The model with the adapter beside it, unmerged, as vLLM runs it: each target gains rank x (in + out).

    Raises:
        BadInput: no rank, target modules that are not named one by one or not known, or layers that differ.
    """
    rank, modules = config.get("r"), config.get("target_modules")
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise BadInput(f"the adapter's r must be an integer, got {rank!r}")
    if not isinstance(modules, list | tuple) or not modules:
        raise BadInput(f"the adapter's target_modules must be a list of names, got {modules!r}")
    for name in _OF_THEIR_OWN:
        if config.get(name):
            raise BadInput(f"an adapter with {name} is not modelled")
    names = [str(module).rpartition(".")[2] for module in modules]
    unknown = sorted(set(names) - _TARGETS.keys())
    if unknown:
        raise BadInput(f"unknown target module {unknown[0]!r}: known are {', '.join(_TARGETS)}")
    return architecture.with_lora(rank, tuple(dict.fromkeys(_TARGETS[name] for name in names)))
