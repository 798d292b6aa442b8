"""What a request would cost, before anything runs: FLOPs, roofline time, energy and grams.

M output tokens are the prefill and M - 1 decode steps; a token's context includes itself; the prefill needs one row
of logits; at most N - 1 of N prompt tokens can come from a cache. Times are the roofline's: the least that the device
needs. Energy is at the device; PUE is applied to the grams.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from metering.errors import BadInput, require_tokens
from metering.estimators import EstimatorName
from metering.flops import AttentionConvention, FlopsByPart, decode_flops, prefill_flops
from metering.hardware.device import Device
from metering.mfu import roofline_seconds, utilisation
from metering.planned_energy import planned_joules
from metering.sci import embodied_share_grams
from metering.shape import ModelArchitecture
from metering.site import Site
from metering.traffic import BytesMoved, decode_bytes, prefill_bytes, weight_read_bytes


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """Of one request among ``batch`` alike; None where a figure of the device is unknown."""

    device: str
    count: int
    batch: int
    precision: str
    site: Site
    time_seconds: float | None = None
    """From the prompt's arrival to the last token, all devices together."""
    prefill_seconds: float | None = None
    """By compute alone, a lower bound, where the device's bandwidth is unknown."""
    decode_seconds: float | None = None
    bound_by: tuple[tuple[str, str], ...] = ()
    """Phase and what bounds it: ``compute`` or ``bandwidth``."""
    mfu_ratio: float | None = None
    mbu_ratio: float | None = None
    energy_joules: float | None = None
    operational_grams: float | None = None
    embodied_grams: float | None = None
    estimator: str | None = None
    cost: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "time_seconds": self.time_seconds,
            "energy_joules": self.energy_joules,
            "operational_grams": self.operational_grams,
            "embodied_grams": self.embodied_grams,
            "method": "modelled",
            "estimator": self.estimator,
            "prefill_seconds": self.prefill_seconds,
            "decode_seconds": self.decode_seconds,
            "bound_by": dict(self.bound_by),
            "mfu_ratio": self.mfu_ratio,
            "mbu_ratio": self.mbu_ratio,
            "device": self.device,
            "count": self.count,
            "batch": self.batch,
            "precision": self.precision,
            "pue": self.site.pue,
            "zone": self.site.intensity.zone,
            "intensity_grams_per_kwh": self.site.intensity.grams_per_kwh,
            "source": self.site.intensity.source,
        }
        return out if self.cost is None else {**out, "cost": self.cost}


@dataclass(frozen=True, slots=True)
class InferenceEstimate:
    """Of one request; ``on_device`` only when a device was given."""

    prefill: FlopsByPart
    decode: FlopsByPart
    parameters_total: int
    parameters_active: int
    kv_bytes_per_token: int
    on_device: DeviceFigures | None = None
    notes: tuple[str, ...] = ()

    @property
    def flops_total(self) -> int:
        return self.prefill.total + self.decode.total

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready and flat; figures of the device only when there is one."""
        return {
            "flops_prefill": self.prefill.total,
            "flops_decode": self.decode.total,
            "flops_total": self.flops_total,
            "parameters_total": self.parameters_total,
            "parameters_active": self.parameters_active,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            **(self.on_device.as_dict() if self.on_device else {}),
            "attention": self.prefill.attention_convention,
            "flops_by_part": {
                phase: {part: flops for part, flops in counted.as_dict().items() if part != "attention_convention"}
                for phase, counted in (("prefill", self.prefill), ("decode", self.decode))
            },
            "notes": list(self.notes),
        }


def estimate_inference(
    architecture: ModelArchitecture,
    prompt_tokens: int,
    output_tokens: int,
    *,
    cached_tokens: int = 0,
    attention: AttentionConvention = "causal",
    device: Device | None = None,
    count: int = 1,
    batch: int = 1,
    precision: str | None = None,
    efficiency: float = 1.0,
    site: Site | None = None,
    estimator: EstimatorName = "idle_aware",
    average_watts: float | None = None,
) -> InferenceEstimate:
    """What one request costs, when ``batch`` requests like it run together on ``count`` devices.

    Args:
        architecture: the model.
        prompt_tokens: N, at least 1.
        output_tokens: M, at least 0.
        cached_tokens: of the prompt, reused from the prefix cache; at most N - 1.
        attention: ``causal`` or, as vLLM bills, ``full``.
        device: from the catalogue or detected; without one only FLOPs and sizes are told.
        count: devices of that kind working together, their communication not counted.
        batch: sequences in the same forward passes; they share each weight read.
        precision: of the arithmetic (``bf16``, ``fp8``); the config's dtype by default.
        efficiency: share of peak and bandwidth that is reached, 1 for the roofline itself.
        site: intensity, PUE, lifetime and prices; needed with a device.
        estimator: of the energy; ``nameplate`` and ``llmcarbon`` as Faiz et al. 2024 have them.
        average_watts: average system power of one device, for ``llmcarbon``; its maximal watts, with a note, if None.

    Raises:
        BadInput: token counts that cannot be, a batch or count below 1, an efficiency outside 0..1, a device
            without a site.
    """
    require_tokens("prompt tokens", prompt_tokens, 1)
    require_tokens("output tokens", output_tokens)
    require_tokens("cached tokens", cached_tokens)
    require_tokens("batch", batch, 1)
    require_tokens("device count", count, 1)
    if cached_tokens > prompt_tokens - 1:
        raise BadInput(
            f"cached tokens must be at most {prompt_tokens - 1}, one less than the prompt's {prompt_tokens} "
            f"(the last one is always computed), got {cached_tokens}"
        )
    if not 0 < efficiency <= 1:
        raise BadInput(f"efficiency must be a ratio above 0 and up to 1, got {efficiency}")
    steps = max(output_tokens - 1, 0)
    prefill = prefill_flops(architecture, prompt_tokens - cached_tokens, cached_tokens, attention=attention)
    decode = decode_flops(architecture, steps, prompt_tokens + 1)
    notes = list(architecture.notes)
    if architecture.max_context_tokens and prompt_tokens + steps > architecture.max_context_tokens:
        notes.append(f"{prompt_tokens + steps} tokens exceed the model's context of {architecture.max_context_tokens}.")
    figures = None
    if device is not None:
        if site is None:
            raise BadInput("an estimate on a device needs a site: its zone or carbon intensity")
        work = _Work(architecture, prompt_tokens, cached_tokens, steps, batch, prefill.total, decode.total)
        power = _Power(estimator, average_watts)
        figures = _on_device(work, device, count, precision or architecture.dtype, efficiency, site, power, notes)
    return InferenceEstimate(
        prefill,
        decode,
        architecture.parameters_total,
        architecture.parameters_active,
        architecture.kv_bytes_per_token(),
        figures,
        tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Power:
    estimator: EstimatorName
    average_watts: float | None


@dataclass(frozen=True, slots=True)
class _Work:
    """One request's tokens, and the FLOPs and bytes of the batch that it runs in."""

    architecture: ModelArchitecture
    prompt: int
    cached: int
    steps: int
    batch: int
    flops_prefill: int
    flops_decode: int

    @property
    def prefill(self) -> tuple[float, float]:
        computed = self.prompt - self.cached
        moved = prefill_bytes(self.architecture, computed, self.cached, **self._widths)
        return float(self.batch * self.flops_prefill), self._shared(computed * self.batch) + self._kv(moved)

    @property
    def decode(self) -> tuple[float, float]:
        if self.steps == 0:
            return 0.0, 0.0
        moved = decode_bytes(self.architecture, self.steps, self.prompt + 1, **self._widths)
        return float(self.batch * self.flops_decode), self.steps * self._shared(self.batch) + self._kv(moved)

    @property
    def memory_bytes(self) -> float:
        """Weights and the cache of the whole batch at its longest."""
        weights = self.architecture.parameters_total * self.architecture.weight_bytes_each
        return weights + self.batch * (self.prompt + self.steps) * self.architecture.kv_bytes_per_token()

    @property
    def _widths(self) -> dict[str, float]:
        return {
            "weight_bytes_each": self.architecture.weight_bytes_each,
            "kv_bytes_each": self.architecture.dtype_bytes,
        }

    def _shared(self, tokens: int) -> float:
        return weight_read_bytes(self.architecture, tokens, weight_bytes_each=self.architecture.weight_bytes_each)

    def _kv(self, moved: BytesMoved) -> float:
        return self.batch * (moved.kv_read + moved.kv_write)


def _on_device(
    work: _Work,
    device: Device,
    count: int,
    precision: str,
    efficiency: float,
    site: Site,
    power: _Power,
    notes: list[str],
) -> DeviceFigures:
    peak_figure, bandwidth_figure = device.peak_for(precision), device.bandwidth_bytes_per_second
    peak = peak_figure.value * count if peak_figure else None
    bandwidth = bandwidth_figure.value * count if bandwidth_figure else None
    memory = device.memory_bytes.value * count if device.memory_bytes else None
    if memory is not None and work.memory_bytes > memory:
        notes.append(f"Weights and cache need {work.memory_bytes / 1e9:.1f} GB, the devices have {memory / 1e9:.1f}.")
    if peak is None:
        notes.append(f"The peak of {device.name} at {precision} is unknown: no MFU; give it, or another precision.")
    if bandwidth is None:
        notes.append(
            f"The bandwidth of {device.name} is unknown: the prefill by compute alone, the least it takes; no figures "
            "of decode, nor of the whole; give the bandwidth."
        )
    blank = DeviceFigures(device.name, count, work.batch, precision, site)
    if peak is None:
        return blank
    if bandwidth is None:
        # prefill is bound by compute but for the shortest prompts; decode by bandwidth, so compute says nothing of it
        least = work.prefill[0] / peak / efficiency
        return replace(blank, prefill_seconds=least, bound_by=(("prefill", "compute"),))
    seconds, bound = [], []
    for phase, (flops, moved) in (("prefill", work.prefill), ("decode", work.decode)):
        least = roofline_seconds(flops, moved, peak_flops=peak, bandwidth_bytes_per_second=bandwidth) or 0.0
        seconds.append(least / efficiency)
        if flops:
            bound.append((phase, "compute" if least == flops / peak else "bandwidth"))
    total = sum(seconds)
    flops = work.prefill[0] + work.decode[0]
    moved = work.prefill[1] + work.decode[1]
    used = utilisation(
        total, useful_flops=flops, bytes_moved=moved, peak_flops=peak, bandwidth_bytes_per_second=bandwidth
    )
    energy, estimator, note = planned_joules(
        power.estimator,
        device,
        count,
        total,
        utilised=efficiency,
        mfu_ratio=used.mfu_ratio,
        average_watts=power.average_watts,
    )
    notes += [note] if note else []
    mine = energy / work.batch if energy is not None else None
    embodied = None
    if device.embodied_kilograms is None:
        notes.append(f"The embodied mass of {device.name} is unknown: give it.")
    else:
        share = embodied_share_grams(device.embodied_kilograms.value, total, lifetime_seconds=site.lifetime_seconds)
        embodied = share * count / work.batch
    return DeviceFigures(
        device.name,
        count,
        work.batch,
        precision,
        site,
        time_seconds=total,
        prefill_seconds=seconds[0],
        decode_seconds=seconds[1],
        bound_by=tuple(bound),
        mfu_ratio=used.mfu_ratio,
        mbu_ratio=used.mbu_ratio,
        energy_joules=mine,
        operational_grams=None if mine is None else site.operational_grams(mine),
        embodied_grams=embodied,
        estimator=estimator,
        cost=site.prices.cost(total * count / work.batch, None if mine is None else mine * site.pue),
    )
