"""Named estimators of energy and operational carbon, beside the measured path: each result says which one made it,
and figures of two estimators never share a series.

``llmcarbon``  average system watts per chip x chips x time (Faiz et al. 2024: the paper's text multiplies by the
               efficiency too, its published numbers do not)
``nameplate``  maximal watts x MFU x time x chips
``idle_aware`` idle + (maximal - idle) x utilisation, x time x chips

All three times PUE, times the grid's intensity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metering.errors import BadInput
from metering.units import JOULES_PER_KWH

EstimatorName = Literal["llmcarbon", "nameplate", "idle_aware"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Energy and operational carbon of a run. ``energy_joules`` is at the devices; PUE adds ``overhead_joules``."""

    estimator: EstimatorName
    seconds: float
    energy_joules: float
    pue: float
    intensity_grams_per_kwh: float

    @property
    def overhead_joules(self) -> float:
        return self.energy_joules * (self.pue - 1)

    @property
    def facility_joules(self) -> float:
        return self.energy_joules * self.pue

    @property
    def operational_grams(self) -> float:
        return self.facility_joules / JOULES_PER_KWH * self.intensity_grams_per_kwh


def training_flops(parameters: float, tokens: float) -> float:
    """6 P D (Kaplan et al. 2020; LLMCarbon): forward 2, backward 4. A mixture of experts: P = active parameters."""
    return 6 * _at_least_zero("parameters", parameters) * _at_least_zero("tokens", tokens)


def inference_flops(parameters: float, tokens: float) -> float:
    """2 P D: the rule of thumb without attention; :mod:`metering.flops` counts exactly."""
    return 2 * _at_least_zero("parameters", parameters) * _at_least_zero("tokens", tokens)


def run_seconds(flops: float, *, chips: float, peak_flops: float, efficiency: float) -> float:
    """t = FLOPs / (n x peak x efficiency).

    Raises:
        BadInput: a term that is not positive, or an efficiency above 1.
    """
    _at_least_zero("FLOPs", flops)
    _positive("chips", chips)
    _positive("device peak", peak_flops)
    _share("efficiency", efficiency, positive=True)
    return flops / (chips * peak_flops * efficiency)


def llmcarbon(
    seconds: float, *, chips: float, average_watts: float, pue: float, intensity_grams_per_kwh: float
) -> Estimate:
    """The paper's published arithmetic: average system watts of a chip, no efficiency factor on power.

    >>> seconds = run_seconds(training_flops(175e9, 300e9), chips=10_000, peak_flops=125e12, efficiency=0.197)
    >>> gpt3 = llmcarbon(seconds, chips=10_000, average_watts=330, pue=1.10, intensity_grams_per_kwh=429)
    >>> round(gpt3.operational_grams / 1e6, 3)
    553.345
    """
    return _estimate("llmcarbon", seconds, chips, _at_least_zero("watts", average_watts), pue, intensity_grams_per_kwh)


def nameplate(
    seconds: float, *, chips: float, max_watts: float, mfu_ratio: float, pue: float, intensity_grams_per_kwh: float
) -> Estimate:
    """E = W x MFU x s x N, times PUE and intensity; W is the maximal power of a chip. Blind to idle power."""
    watts = _at_least_zero("watts", max_watts) * _share("MFU", mfu_ratio)
    return _estimate("nameplate", seconds, chips, watts, pue, intensity_grams_per_kwh)


def idle_aware(
    seconds: float,
    *,
    chips: float,
    idle_watts: float,
    max_watts: float,
    utilisation_ratio: float,
    pue: float,
    intensity_grams_per_kwh: float,
) -> Estimate:
    """P = idle + (maximal - idle) x utilisation; the utilisation is max(MFU, MBU), for decode moves bytes."""
    idle, full = _at_least_zero("idle watts", idle_watts), _at_least_zero("maximal watts", max_watts)
    if idle > full:
        raise BadInput(f"idle watts ({idle}) exceed maximal watts ({full})")
    watts = idle + (full - idle) * _share("utilisation", utilisation_ratio)
    return _estimate("idle_aware", seconds, chips, watts, pue, intensity_grams_per_kwh)


def _estimate(
    name: EstimatorName, seconds: float, chips: float, watts: float, pue: float, intensity: float
) -> Estimate:
    _at_least_zero("time", seconds)
    _positive("chips", chips)
    if not 1 <= pue < float("inf"):
        raise BadInput(f"PUE is facility power over device power and at least 1, got {pue}")
    return Estimate(name, seconds, watts * chips * seconds, pue, _at_least_zero("intensity", intensity))


def _at_least_zero(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise BadInput(f"{name} must be at least 0 and finite, got {value}")
    return value


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise BadInput(f"{name} must be positive and finite, got {value}")
    return value


def _share(name: str, value: float, *, positive: bool = False) -> float:
    if not 0 <= value <= 1 or (positive and value == 0):
        raise BadInput(f"{name} must be a ratio {'above 0 and' if positive else 'from 0'} up to 1, got {value}")
    return value
