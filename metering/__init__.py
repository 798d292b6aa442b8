"""FLOPs, MFU, power, carbon and their attribution to requests; pure Python, useful on its own.

Estimating one's own model in five lines:

>>> import metering
>>> model = metering.architecture_from_config({"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30,
...     "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
...     "tie_word_embeddings": True, "dtype": "bfloat16"})
>>> site = metering.Site(metering.StaticIntensity("FRA").reading, pue=1.1)
>>> plan = metering.estimate_inference(model, 1000, 200, device=metering.find_device("L4"), site=site)
>>> f"{plan.flops_total / 1e9:.1f} GFLOP, {plan.on_device.time_seconds:.3f} s, {plan.on_device.energy_joules:.1f} J"
'315.6 GFLOP, 0.197 s, 14.2 J'

Names are loaded when first used: importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metering.architecture import ModelArchitecture as ModelArchitecture
    from metering.architecture import architecture_from_config as architecture_from_config
    from metering.architecture import load_architecture as load_architecture
    from metering.embodied import EmbodiedDevice as EmbodiedDevice
    from metering.embodied import device_from_parts as device_from_parts
    from metering.embodied import load_parts as load_parts
    from metering.errors import BadInput as BadInput
    from metering.estimators import idle_aware as idle_aware
    from metering.estimators import llmcarbon as llmcarbon
    from metering.estimators import nameplate as nameplate
    from metering.flops import FlopsByPart as FlopsByPart
    from metering.flops import decode_flops as decode_flops
    from metering.flops import encode_flops as encode_flops
    from metering.flops import prefill_flops as prefill_flops
    from metering.fourms import Footing as Footing
    from metering.fourms import factor as factor
    from metering.hardware import Device as Device
    from metering.hardware import catalogue as catalogue
    from metering.hardware import detect as detect
    from metering.hardware import find_device as find_device
    from metering.intensity import StaticIntensity as StaticIntensity
    from metering.intensity import find_zone as find_zone
    from metering.mfu import model_flops_utilisation as model_flops_utilisation
    from metering.mfu import utilisation as utilisation
    from metering.planner import InferenceEstimate as InferenceEstimate
    from metering.planner import estimate_inference as estimate_inference
    from metering.receipt import Receipt as Receipt
    from metering.sci import embodied_share_grams as embodied_share_grams
    from metering.sci import sci_score as sci_score
    from metering.site import Prices as Prices
    from metering.site import Site as Site
    from metering.traffic import decode_bytes as decode_bytes
    from metering.traffic import prefill_bytes as prefill_bytes
    from metering.training import TrainingEstimate as TrainingEstimate
    from metering.training import estimate_training as estimate_training
    from metering.units import parse_quantity as parse_quantity
    from metering.work import WorkRecord as WorkRecord

_HOMES = {
    "architecture": ("ModelArchitecture", "architecture_from_config", "load_architecture"),
    "embodied": ("EmbodiedDevice", "device_from_parts", "load_parts"),
    "errors": ("BadInput",),
    "estimators": ("idle_aware", "llmcarbon", "nameplate"),
    "flops": ("FlopsByPart", "decode_flops", "encode_flops", "prefill_flops"),
    "fourms": ("Footing", "factor"),
    "hardware": ("Device", "catalogue", "detect", "find_device"),
    "intensity": ("StaticIntensity", "find_zone"),
    "mfu": ("model_flops_utilisation", "utilisation"),
    "planner": ("InferenceEstimate", "estimate_inference"),
    "receipt": ("Receipt",),
    "sci": ("embodied_share_grams", "sci_score"),
    "site": ("Prices", "Site"),
    "traffic": ("decode_bytes", "prefill_bytes"),
    "training": ("TrainingEstimate", "estimate_training"),
    "units": ("parse_quantity",),
    "work": ("WorkRecord",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'metering' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"metering.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
