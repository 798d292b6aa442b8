"""A simulation's figures under the names that a measured run has, energy and grams included."""

from __future__ import annotations

from typing import Any

import numpy as np

from metering.sci import embodied_share_grams
from metering.site import Site
from serving.tuning.engine_model import EngineModel
from serving.tuning.simulation import Simulated
from serving.tuning.slo import PERCENTILES, Slo
from serving.tuning.statistics import percentiles
from serving.tuning.workload import Flags, Workload


def forecast(
    workload: Workload, model: EngineModel, run: Simulated, slo: Slo, site: Site, *, host_watts: float = 0.0
) -> dict[str, Any]:
    """JSON-ready figures of a whole fleet; ``simulated``, whatever its engine model came from.

    ``host_watts``: of one replica's share of its host, drawn all the time.
    """
    answered = ~np.isnan(run.e2e_seconds)
    count = int(answered.sum())
    seconds = max(run.seconds, 1e-9)
    output = int(workload.output_tokens[answered].sum())
    kept = int(np.sum(_kept(run, slo, answered)))
    flops = _flops(workload, model, run)
    energy = None
    if model.power is not None:
        replica_seconds = seconds * run.replicas
        busy, idle = model.power.joules(replica_seconds, run.busy_seconds)
        energy = {"accelerator": busy, "host": host_watts * replica_seconds, "idle": idle}
        energy["overhead"] = sum(energy.values()) * (site.pue - 1)
        energy["total"] = sum(energy.values())
    device_joules = None if energy is None else energy["total"] / site.pue
    grams = None if device_joules is None else site.operational_grams(device_joules)
    embodied = None
    if model.embodied_kilograms is not None:
        each = embodied_share_grams(model.embodied_kilograms, seconds, lifetime_seconds=site.lifetime_seconds)
        embodied = each * run.replicas
    cost = site.prices.cost(seconds * run.replicas * model.devices, None if energy is None else energy["total"])
    return {
        "method": "simulated",
        "engine_model": model.method,
        "requests": len(workload),
        "completed": count,
        "refused": run.refused,
        "seconds": seconds,
        "replicas": run.replicas,
        "devices": run.replicas * model.devices,
        "requests_per_second": count / seconds,
        "output_tokens": output,
        "output_tokens_per_second": output / seconds,
        "slo": str(slo),
        "goodput_ratio": kept / len(workload),
        "goodput_per_second": kept / seconds,
        **percentiles("ttft", run.ttft_seconds[answered]),
        **{f"itl_p{p}_seconds": run.gap_percentile(p) for p in PERCENTILES},
        **percentiles("e2e", run.e2e_seconds[answered]),
        "mean_batch": run.sequence_steps / run.steps if run.steps else None,
        "busy_ratio": run.busy_seconds / (seconds * run.replicas),
        "cache_hit_ratio": run.hits / len(workload),
        "mfu_ratio": None
        if flops is None or not model.peak_flops
        else flops / (model.peak_flops * run.replicas * seconds),
        "flops": flops,
        "energy_joules": energy,
        "kilowatts": None if energy is None else energy["total"] / seconds / 1000,
        "operational_grams": grams,
        "embodied_grams": embodied,
        "joules_per_output_token": None if energy is None or not output else energy["total"] / output,
        "grams_per_1k_output_tokens": None if grams is None or not output else 1000 * grams / output,
        "cost": cost,
        "cost_per_1k_output_tokens": None if cost is None or not output else 1000 * cost["total"] / output,
        "zone": site.intensity.zone,
        "intensity_grams_per_kwh": site.intensity.grams_per_kwh,
        "pue": site.pue,
    }


def _kept(run: Simulated, slo: Slo, answered: Flags) -> Flags:
    kept = answered.copy()
    values = {"ttft": run.ttft_seconds, "itl": np.nan_to_num(run.per_token_seconds), "e2e": run.e2e_seconds}
    for bound in slo.bounds:
        kept &= np.nan_to_num(values[bound.metric], nan=np.inf) <= bound.seconds
    return kept


def _flops(workload: Workload, model: EngineModel, run: Simulated) -> float | None:
    """The causal count of :mod:`metering.flops` over all requests that ran, by its coefficients."""
    if model.flops is None:
        return None
    ran = (run.computed_prompt_tokens > 0) & ~np.isnan(run.e2e_seconds)
    computed = run.computed_prompt_tokens[ran].astype(np.float64)
    prompt = workload.prompt_tokens[ran].astype(np.float64)
    decoded = workload.output_tokens[ran].astype(np.float64) - 1
    cached = prompt - computed
    pairs = prompt * (prompt + 1) / 2 - cached * (cached + 1) / 2 + decoded * prompt + decoded * (decoded + 1) / 2
    flops = model.flops
    tokens = float(np.sum(computed + decoded))
    return flops.per_token * tokens + flops.per_pair * float(pairs.sum()) + flops.per_row * float(np.sum(decoded + 1))
