"""A device's figures, each with its source; a figure that nobody published is ``None``, never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from metering.errors import BadInput

Kind = Literal["gpu", "tpu", "npu", "cpu", "simulated"]
MIG_PREFIX = "MIG-"
"""With which the UUIDs of MIG slices begin (NVIDIA MIG user guide, device enumeration)."""
_SHORT = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32", "float64": "fp64",
    "float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in the unit that its field names, and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Device:
    """One device: an accelerator board, or the CPU threads of a machine that the engine may use.

    Peaks are dense. ``embodied_scope`` says what the embodied mass covers (die, board, share of an instance, server).
    """

    name: str
    kind: Kind
    peak_flops: Mapping[str, Figure] = field(default_factory=dict)
    """FLOP/s by precision: fp64, fp32, tf32, bf16, fp16, fp8, int8."""
    bandwidth_bytes_per_second: Figure | None = None
    memory_bytes: Figure | None = None
    idle_watts: Figure | None = None
    max_watts: Figure | None = None
    die_area_mm2: Figure | None = None
    process_nm: Figure | None = None
    memory_kind: str | None = None
    embodied_kilograms: Figure | None = None
    embodied_scope: str | None = None
    notes: tuple[str, ...] = ()

    def peak_for(self, dtype: str) -> Figure | None:
        """Peak FLOP/s at a precision (``bfloat16`` or ``bf16``), None where unknown.

        A CPU that has no figure for a 16-bit precision runs it on its fp32 units, so the fp32 peak applies there
        and the source says so. An accelerator's missing precision stays unknown.
        """
        short = _SHORT.get(dtype, dtype)
        found = self.peak_flops.get(short)
        if found is None and self.kind == "cpu" and short in ("bf16", "fp16") and "fp32" in self.peak_flops:
            fp32 = self.peak_flops["fp32"]
            return Figure(fp32.value, f"{fp32.source}; {short} runs on the fp32 units")
        return found

    def unknown(self) -> tuple[str, ...]:
        """Names of the figures that nobody gave."""
        names = (
            "bandwidth_bytes_per_second", "memory_bytes", "idle_watts", "max_watts", "embodied_kilograms",
        )  # fmt: skip
        missing = tuple(name for name in names if getattr(self, name) is None)
        return (() if self.peak_flops else ("peak_flops",)) + missing

    def overridden(self, figures: Mapping[str, Any], source: str = "configured") -> Device:
        """A copy with the operator's figures in place: plain numbers under this class's field names;
        ``peak_flops`` is a mapping by precision and adds to what is there.

        Raises:
            BadInput: an unknown name, or a figure that is not a positive number (watts and mass may be 0).
        """
        changes: dict[str, Any] = {}
        for name, value in figures.items():
            if value is None:
                continue
            if name == "peak_flops":
                peaks = {_SHORT.get(key, key): _figure(f"peak_flops.{key}", one, source) for key, one in value.items()}
                changes[name] = MappingProxyType({**self.peak_flops, **peaks})
            elif name in _FIGURES:
                changes[name] = _figure(name, value, source)
            elif name in ("name", "embodied_scope", "memory_kind"):
                changes[name] = str(value)
            else:
                known = ", ".join((*_FIGURES, "peak_flops", "name", "embodied_scope", "memory_kind"))
                raise BadInput(f"a device has no figure {name!r}: use one of {known}")
        out = replace(self, **changes)
        if out.idle_watts and out.max_watts and out.idle_watts.value > out.max_watts.value:
            raise BadInput(
                f"idle power of {out.name} ({out.idle_watts.value} W) exceeds its maximum ({out.max_watts.value} W)"
            )
        return out

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; unknown figures are null."""

        def plain(figure: Figure | None) -> dict[str, Any] | None:
            return None if figure is None else {"value": figure.value, "source": figure.source}

        return {
            "name": self.name,
            "kind": self.kind,
            "peak_flops": {precision: plain(figure) for precision, figure in self.peak_flops.items()},
            **{name: plain(getattr(self, name)) for name in _FIGURES},
            "memory_kind": self.memory_kind,
            "embodied_scope": self.embodied_scope,
            "unknown": list(self.unknown()),
            "notes": list(self.notes),
        }


_FIGURES = (
    "bandwidth_bytes_per_second", "memory_bytes", "idle_watts", "max_watts", "die_area_mm2", "process_nm",
    "embodied_kilograms",
)  # fmt: skip
_MAY_BE_ZERO = ("idle_watts", "max_watts", "embodied_kilograms")


def _figure(name: str, value: Any, source: str) -> Figure:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{name} must be a number, got {value!r}")
    if not (value > 0 or (value == 0 and name in _MAY_BE_ZERO)) or value == float("inf"):
        raise BadInput(f"{name} must be {'at least 0' if name in _MAY_BE_ZERO else 'positive'}, got {value}")
    return Figure(float(value), source)


@dataclass(frozen=True, slots=True)
class DetectedHardware:
    """The devices of this machine that an engine may run on: ``count`` of the same kind, figures per device.

    A CPU is one device, however many threads: its figures cover the threads counted.
    """

    device: Device
    count: int = 1
    threads: int | None = None
    """Hardware threads (vCPUs) that a CPU's figures cover."""
    uuids: tuple[str, ...] = ()
    """Of the devices, where the driver gives them."""

    @property
    def name(self) -> str:
        return self.device.name

    @property
    def slices(self) -> tuple[str, ...]:
        """MIG slices among ``uuids``: the watts, mass and price of a device are those of a whole GPU."""
        return tuple(uuid for uuid in self.uuids if uuid.startswith(MIG_PREFIX))

    @property
    def kind(self) -> Kind:
        return self.device.kind

    def peak_for(self, dtype: str) -> Figure | None:
        """Peak FLOP/s of all the devices together; see :meth:`Device.peak_for`."""
        one = self.device.peak_for(dtype)
        return None if one is None else Figure(one.value * self.count, one.source)

    def as_dict(self) -> dict[str, Any]:
        return {**self.device.as_dict(), "count": self.count, "threads": self.threads, "uuids": list(self.uuids)}
