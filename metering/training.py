"""The planner's estimate of a training run: 6 P D FLOPs by a named estimator (Faiz et al. 2024, LLMCarbon, if none)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metering.errors import BadInput
from metering.estimators import EstimatorName, idle_aware, llmcarbon, nameplate, run_seconds, training_flops
from metering.sci import DEFAULT_LIFETIME_YEARS, YEAR_SECONDS, embodied_share_grams
from metering.site import Prices
from metering.units import kwh


@dataclass(frozen=True, slots=True)
class TrainingEstimate:
    """Of one training run; ``energy_joules`` with PUE, as the paper states it."""

    flops: float
    seconds: float
    energy_joules: float
    operational_grams: float
    estimator: EstimatorName = "llmcarbon"
    embodied_grams: float | None = None
    cost: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, in the units of the paper's tables."""
        out: dict[str, Any] = {
            "zettaflops": self.flops / 1e21,
            "days": self.seconds / 86_400,
            "energy_mwh": kwh(self.energy_joules) / 1000,
            "carbon_tonnes": self.operational_grams / 1e6,
            "method": "modelled",
            "estimator": self.estimator,
        }
        if self.embodied_grams is not None:
            out["embodied_tonnes"] = self.embodied_grams / 1e6
        if self.cost is not None:
            out["cost"] = self.cost
        return out


def estimate_training(
    parameters: float,
    tokens: float,
    *,
    device_peak_flops: float,
    efficiency: float,
    chips: float,
    average_watts: float,
    pue: float,
    intensity_grams_per_kwh: float,
    embodied_kilograms: float | None = None,
    lifetime_years: float = DEFAULT_LIFETIME_YEARS,
    prices: Prices | None = None,
    estimator: EstimatorName = "llmcarbon",
    idle_watts: float | None = None,
) -> TrainingEstimate:
    """Energy and carbon of training ``parameters`` (a mixture of experts: those active) on ``tokens``.

    ``average_watts`` is the average system power of a chip: the efficiency shortens nothing but the time. The
    estimators ``nameplate`` and ``idle_aware`` take it as the maximal power, and the efficiency as the utilisation;
    ``idle_aware`` needs ``idle_watts`` too.

    >>> t5 = estimate_training(11e9, 600e9, device_peak_flops=123e12, efficiency=0.37, chips=512, average_watts=310,
    ...     pue=1.12, intensity_grams_per_kwh=545)
    >>> round(t5.as_dict()["carbon_tonnes"], 3)
    45.736

    Raises:
        BadInput: a term out of its range, named; idle watts missing, or given to an estimator that has no use for them.
    """
    flops = training_flops(parameters, tokens)
    seconds = run_seconds(flops, chips=chips, peak_flops=device_peak_flops, efficiency=efficiency)
    site = {"chips": chips, "pue": pue, "intensity_grams_per_kwh": intensity_grams_per_kwh}
    if (idle_watts is None) == (estimator == "idle_aware"):
        raise BadInput(f"the estimator {estimator} takes {'idle' if idle_watts is None else 'no idle'} watts")
    if estimator == "nameplate":
        run = nameplate(seconds, max_watts=average_watts, mfu_ratio=efficiency, **site)
    elif idle_watts is not None:
        run = idle_aware(seconds, idle_watts=idle_watts, max_watts=average_watts, utilisation_ratio=efficiency, **site)
    else:
        run = llmcarbon(seconds, average_watts=average_watts, **site)
    embodied = None
    if embodied_kilograms is not None:
        share = embodied_share_grams(embodied_kilograms, seconds, lifetime_seconds=lifetime_years * YEAR_SECONDS)
        embodied = chips * share
    cost = (prices or Prices()).cost(seconds * chips, run.facility_joules)
    return TrainingEstimate(flops, seconds, run.facility_joules, run.operational_grams, estimator, embodied, cost)
