"""From the steps of measured runs to an engine model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metering.hardware.device import DetectedHardware
from metering.shape import ModelArchitecture
from serving.tuning.engine_model import EngineModel, FlopCount, Power
from serving.tuning.fitting import fit_plane
from serving.tuning.step_log import StepRecord

UNKNOWN_DEVICE = "an upstream's device"


def fit_engine_model(
    records: Sequence[StepRecord],
    *,
    model: str,
    hardware: DetectedHardware | None,
    precision: str,
    architecture: ModelArchitecture | None = None,
    runs: Sequence[Mapping[str, Any]] = (),
    source: str = "",
) -> EngineModel:
    """``runs``: figures of the metered runs that the steps are of; where they kept the engine busy throughout
    (closed loops), their mean watts are what a step draws, host and memory included.

    Raises:
        BadInput: too few steps, or steps that never vary.
    """
    plane, quality = fit_plane(records, source=source)
    peak = None if hardware is None else hardware.peak_for(precision)
    return EngineModel(
        model=model,
        device=UNKNOWN_DEVICE if hardware is None else hardware.name,
        planes=(plane,),
        overhead_seconds=_overhead(runs, plane.per_prompt_token, plane.fixed),
        power=_power(hardware, runs),
        peak_flops=peak.value if peak else None,
        flops=None if architecture is None else FlopCount.of(architecture),
        method="fitted",
        fit=quality,
    )


def _overhead(runs: Sequence[Mapping[str, Any]], prompt_token_seconds: float, step_seconds: float) -> float:
    """What a request of a run with a single client waits beyond the step of its prompt; 0 where there was none."""
    found = []
    for run in runs:
        if run.get("clients") != 1 or not run.get("completed") or run.get("ttft_p50_seconds") is None:
            continue
        computed = run["prompt_tokens"] / run["completed"] * (1 - (run.get("prefix_cached_ratio") or 0.0))
        found.append(run["ttft_p50_seconds"] - step_seconds - prompt_token_seconds * computed)
    return max(0.0, float(np.median(found))) if found else 0.0


def _power(hardware: DetectedHardware | None, runs: Sequence[Mapping[str, Any]]) -> Power | None:
    """Metered where runs with joules kept the engine busy; else the device's own figures, where they are known."""
    device = None if hardware is None else hardware.device
    known = device is not None and device.idle_watts is not None and device.max_watts is not None
    count = 1 if hardware is None else hardware.count
    idle = device.idle_watts.value * count if known and device and device.idle_watts else None
    most = device.max_watts.value * count if known and device and device.max_watts else None
    watts = [run["joules"] / run["seconds"] for run in runs if run.get("clients") and run.get("joules")]
    if not watts:
        return None if idle is None or most is None else Power(idle, most)
    busy = float(np.median(watts))
    # an idle engine's host and memory still draw; what falls away is the device's own part above idle
    spared = 0.0 if idle is None or most is None else most - idle
    return Power(max(0.0, busy - spared), busy)
