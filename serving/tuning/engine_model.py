"""How long a step takes: an engine on a device, as a small function of what the step holds.

A step's time is the largest of a few planes, each affine in (sequences decoding, prompt tokens, context tokens read,
prompt attention pairs): one plane where it was fitted, two (compute, bandwidth) where it is the device's roofline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from metering.errors import BadInput
from metering.flops import decode_flops, prefill_flops
from metering.hardware.device import Device
from metering.shape import ModelArchitecture
from metering.traffic import decode_bytes

_FORMAT = 1
_HOST_SECONDS = 0.0005
"""A scheduler's share of a step that no device figure covers: modest, so that tiny models are not infinitely fast."""
_MEMORY_SHARE = 0.9
"""vLLM's default gpu_memory_utilization: what is left of it by the weights holds keys and values."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Seconds: ``fixed + per_sequence B + per_prompt_token P + per_context_token C + per_prompt_pair Q``."""

    fixed: float
    per_sequence: float = 0.0
    per_prompt_token: float = 0.0
    per_context_token: float = 0.0
    per_prompt_pair: float = 0.0

    def seconds(self, sequences: float, prompt_tokens: float, context_tokens: float, prompt_pairs: float) -> float:
        return (
            self.fixed
            + self.per_sequence * sequences
            + self.per_prompt_token * prompt_tokens
            + self.per_context_token * context_tokens
            + self.per_prompt_pair * prompt_pairs
        )


@dataclass(frozen=True, slots=True)
class Power:
    """Idle-aware: P = idle + (max - idle) x utilisation, at ``busy_utilisation`` while a step runs."""

    idle_watts: float
    max_watts: float
    busy_utilisation: float = 1.0

    def joules(self, seconds: float, busy_seconds: float) -> tuple[float, float]:
        """Of work, and idle: the idle watts of the time without a step."""
        busy = self.idle_watts + (self.max_watts - self.idle_watts) * self.busy_utilisation
        return busy * busy_seconds, self.idle_watts * max(0.0, seconds - busy_seconds)


@dataclass(frozen=True, slots=True)
class FlopCount:
    """Coefficients of the exact count, for whole workloads at once (sliding windows are counted as full context)."""

    per_token: float
    """All matrices but the LM head."""
    per_pair: float
    """One query against one key."""
    per_row: float
    """One row of logits."""

    @classmethod
    def of(cls, architecture: ModelArchitecture) -> Self:
        one = decode_flops(architecture, 1, 1)
        two = decode_flops(architecture, 1, 2)
        head = prefill_flops(architecture, 1).total - prefill_flops(architecture, 1, logits_rows=0).total
        pair = two.total - one.total
        return cls(float(one.total - pair - head), float(pair), float(head))


@dataclass(frozen=True, slots=True)
class FitQuality:
    """How the planes were found. Errors are of the steps' seconds, relative."""

    records: int = 0
    median_error: float | None = None
    p95_error: float | None = None
    held_out_median_error: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """One model on one replica's devices."""

    model: str
    device: str
    planes: tuple[Plane, ...]
    overhead_seconds: float = 0.0
    """Of a request outside the engine's steps: HTTP, tokenising, templates."""
    devices: int = 1
    """Of one replica."""
    kv_tokens: int | None = None
    """Tokens whose keys and values fit at once; None: not a limit."""
    power: Power | None = None
    """Of all devices of one replica; None: unknown, so no joules."""
    peak_flops: float | None = None
    """Of all devices of one replica; None: unknown, so no MFU."""
    flops: FlopCount | None = None
    embodied_kilograms: float | None = None
    method: str = "modelled"
    """``fitted`` to a real engine's steps, or ``modelled`` from the device's roofline."""
    fit: FitQuality = field(default_factory=FitQuality)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.planes:
            raise BadInput("an engine model needs at least one plane")
        for plane in self.planes:
            if min(asdict(plane).values()) < 0 or plane.fixed + plane.per_sequence <= 0:
                raise BadInput("an engine model's coefficients are at least 0, and a step takes some time")

    def step_seconds(
        self, sequences: float, prompt_tokens: float = 0, context_tokens: float = 0, prompt_pairs: float = 0
    ) -> float:
        """Time of one step."""
        return max(plane.seconds(sequences, prompt_tokens, context_tokens, prompt_pairs) for plane in self.planes)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """
        Raises:
            BadInput: unreadable, another format, or coefficients that cannot be.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"cannot read the engine model {path}: {error.strerror}") from None
        except ValueError:
            raise BadInput(f"{path} is not an engine model: not JSON") from None
        if not isinstance(value, dict) or value.pop("format", None) != _FORMAT:
            raise BadInput(f"{path} is not an engine model of this version: fit it again")
        try:
            return cls._from(value)
        except (KeyError, TypeError) as error:
            raise BadInput(f"{path} is not a whole engine model ({error}): fit it again") from None

    @classmethod
    def _from(cls, value: Mapping[str, Any]) -> Self:
        parts: dict[str, Any] = dict(value)
        parts["planes"] = tuple(Plane(**plane) for plane in parts["planes"])
        parts["power"] = Power(**parts["power"]) if parts.get("power") else None
        parts["flops"] = FlopCount(**parts["flops"]) if parts.get("flops") else None
        parts["fit"] = FitQuality(**parts["fit"])
        parts["notes"] = tuple(parts.get("notes", ()))
        return cls(**parts)


def roofline_model(
    architecture: ModelArchitecture, name: str, device: Device, *, count: int = 1, efficiency: float = 0.5
) -> EngineModel:
    """A model for a device where nothing was measured: compute and bandwidth planes at ``efficiency`` of the sheet's
    figures, communication between ``count`` devices not counted.

    Raises:
        BadInput: an unknown peak or bandwidth, an efficiency outside 0..1, or weights that do not fit.
    """
    if not 0 < efficiency <= 1:
        raise BadInput(f"efficiency must be a ratio above 0 and up to 1, got {efficiency}")
    if count < 1:
        raise BadInput(f"a replica has at least one device, got {count}")
    peak, bandwidth = device.peak_for(architecture.dtype), device.bandwidth_bytes_per_second
    if peak is None or bandwidth is None:
        missing = f"peak at {architecture.dtype}" if peak is None else "memory bandwidth"
        raise BadInput(f"the {missing} of {device.name} is unknown: fit an engine model on it, or choose another")
    flops = FlopCount.of(architecture)
    rate, stream = peak.value * count * efficiency, bandwidth.value * count * efficiency
    weights = architecture.matmul_parameters_read(1) * architecture.weight_bytes_each
    kv = architecture.kv_bytes_per_token()
    one, two = (
        decode_bytes(
            architecture, 1, c, weight_bytes_each=architecture.weight_bytes_each, kv_bytes_each=architecture.dtype_bytes
        )
        for c in (1, 2)
    )
    kv_read = two.kv_read - one.kv_read
    compute = Plane(
        _HOST_SECONDS,
        (flops.per_token + flops.per_row) / rate,
        flops.per_token / rate,
        flops.per_pair / rate,
        flops.per_pair / rate,
    )
    memory = Plane(_HOST_SECONDS + weights / stream, one.kv_write / stream, kv / stream, kv_read / stream)
    notes = []
    if architecture.matmul_parameters_read(64) > architecture.matmul_parameters_read(1):
        notes.append("A mixture of experts: a step is charged the experts of one token, too few in large batches.")
    kv_tokens = None
    if device.memory_bytes is not None:
        room = device.memory_bytes.value * count * _MEMORY_SHARE
        room -= architecture.parameters_total * architecture.weight_bytes_each
        if room < kv:
            raise BadInput(
                f"the weights of {name} do not fit {count} x {device.name}: "
                "give each replica more devices, or quantise the model"
            )
        kv_tokens = int(room // kv)
    power = None
    if device.max_watts is not None:
        idle = device.idle_watts.value if device.idle_watts else device.max_watts.value
        if device.idle_watts is None:
            notes.append(f"The idle power of {device.name} is unknown: maximal watts throughout, an upper bound.")
        power = Power(idle * count, device.max_watts.value * count, efficiency)
    embodied = device.embodied_kilograms
    return EngineModel(
        model=name,
        device=device.name,
        planes=(compute, memory),
        devices=count,
        kv_tokens=kv_tokens,
        power=power,
        peak_flops=peak.value * count,
        flops=flops,
        embodied_kilograms=None if embodied is None else embodied.value * count,
        fit=FitQuality(source=f"roofline at {efficiency:g} of the sheet's figures"),
        notes=tuple(notes),
    )
