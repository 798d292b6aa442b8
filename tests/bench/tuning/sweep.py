"""An exhaustive sweep of the live cap on the real engine, the engine model fitted to it, and a held-out workload.

    python tests/bench/tuning/sweep.py --out tests/bench/tuning/results

Writes ``sweep.json`` (figures of each cap, in the order they ran), ``engine_model.json`` and ``held_out.json`` (the
real engine beside the simulator on a workload that the fit has not seen). Some eight minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

from metering.architecture import load_architecture
from metering.intensity.static import StaticIntensity
from metering.site import Site
from serving.bundled_model import bundled_model_folder
from serving.config import load_config
from serving.placement.metering_setup import node_hardware
from serving.tuning.bench import GatewayBench
from serving.tuning.engine_model import EngineModel, FlopCount, Power
from serving.tuning.fitting import fit_plane, records_of
from serving.tuning.forecast import forecast
from serving.tuning.lengths import Lengths
from serving.tuning.setting import Setting
from serving.tuning.simulation import Limits, simulate
from serving.tuning.slo import Slo
from serving.tuning.statistics import DevicePeaks
from serving.tuning.synthetic import Synthetic

CAPS = (8, 1, 32, 4, 16, 2, 8)
"""Out of order, and one of them twice: the difference of the two tells the noise."""
PROMPT, OUTPUT = Lengths("uniform", 16, 96), Lengths("uniform", 12, 40)
COMPARED = ("ttft_p50_seconds", "ttft_p95_seconds", "itl_p50_seconds", "itl_p95_seconds", "e2e_p50_seconds",
            "output_tokens_per_second", "joules_per_output_token")  # fmt: skip


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=420.0, help="stop starting runs after this long")
    arguments = parser.parse_args()
    began = time.monotonic()
    config = load_config(None, {"cache.tier": "off", "server.port": 0}).config
    hardware = node_hardware(config)
    assert hardware.detected is not None
    peak = hardware.detected.peak_for("float32")
    bench = GatewayBench(
        config, Slo(), hardware.detected.name, 32, tell, clients=32, warm_up_requests=8,
        peaks=DevicePeaks(peak.value if peak else None),
    )  # fmt: skip
    sweep, outcomes = [], []
    load_before = os.getloadavg()
    try:
        for number, cap in enumerate(CAPS):
            if time.monotonic() - began > arguments.seconds * 0.75:
                tell(f"out of time before cap {cap}")
                break
            # as many requests as keep the batch full a few times over, so that a slow cap takes no longer
            workload = Synthetic(min(64, max(8, 3 * cap)), 1.0, PROMPT, OUTPUT, seed=number).workload()
            bench.clients, bench.warm_up_requests = cap, min(4, cap)
            figures = bench.run(Setting(cap), workload, seed=number, hopeless=False)
            tell(f"cap {cap}: {figures['output_tokens_per_second']:.1f} tokens/s, itl p50 {figures['itl_p50_seconds']}")
            sweep.append({"cap": cap, "load_average": os.getloadavg()[0], **figures})
            outcomes.append(list(bench.last_outcomes))
        held = Synthetic(40, 1.2, PROMPT, OUTPUT, arrivals="gamma", burstiness=1.5, seed=99).workload()
        bench.clients, bench.warm_up_requests = None, 4
        real = bench.run(Setting(12), held, seed=99, hopeless=False)
        held_outcomes = list(bench.last_outcomes)
    finally:
        bench.close()
    records = [record for run in outcomes for record in records_of(run)]
    plane, quality = fit_plane(records, source=f"closed loop, caps {[row['cap'] for row in sweep]}")
    device = hardware.detected.device
    power = None
    if device.idle_watts and device.max_watts:
        power = Power(device.idle_watts.value, device.max_watts.value)
    model = EngineModel(
        model="smollm2-135m-instruct", device=hardware.detected.name, planes=(plane,), power=power,
        peak_flops=peak.value if peak else None, flops=FlopCount.of(load_architecture(bundled_model_folder())),
        method="fitted", fit=quality,
    )  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    model.save(arguments.out / "engine_model.json")
    # the prompts' real lengths: the chat template and the tokeniser add to what the workload asks for
    by_order = sorted(held_outcomes, key=lambda one: one.intended_seconds)
    lengths = [max(1, one.prompt_tokens) for one in by_order]
    seen = held.__class__(
        held.arrival_seconds, held.prompt_tokens * 0 + lengths, held.output_tokens, held.prefix_tokens, held.repeat_of
    )
    site = Site(StaticIntensity("WORLD").reading)
    predicted = forecast(seen, model, simulate(seen, model, Limits(12)), Slo(), site)
    comparison = {
        name: {"real": real[name], "simulated": predicted[name], "error": _error(real[name], predicted[name])}
        for name in COMPARED
    }
    machine = {"processor": platform.processor(), "cores": os.cpu_count(), "load_average_before": load_before}
    out = {"machine": machine, "runs": sweep}
    (arguments.out / "sweep.json").write_text(json.dumps(out, indent=1) + "\n")
    (arguments.out / "held_out.json").write_text(
        json.dumps({"machine": machine, "workload": held.describe(), "comparison": comparison, "real": real}, indent=1)
        + "\n"
    )
    tell(json.dumps(comparison, indent=1))
    tell(f"fit: {quality}")


def _error(real: float | None, simulated: float | None) -> float | None:
    return None if not real or simulated is None else simulated / real - 1


if __name__ == "__main__":
    main()
