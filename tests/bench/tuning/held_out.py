"""The simulator against the real engine, on workloads that its engine model was not fitted to.

    python -m tests.bench.tuning.held_out --out tests/bench/tuning/results

One gateway serves closed loops, which the engine model is fitted to, in turn with the open-loop workloads that it is
judged by: a machine that others share drifts by a fifth within the hour, and so does what is fitted to it. What is left
of that drift is one figure a workload, its ``pace``: seconds of its own steps over what the model says of them. The
errors are told without it, and with the model slowed by it, which leaves batching and queueing to be judged. Writes
``held_out.json``, ``held_out.md``, ``held_out.png`` and ``held_out_engine_model.json``. Some six minutes on one core.
``--model FILE`` compares the stored runs with another engine model and prints that, without an engine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from metering.architecture import load_architecture
from metering.intensity.static import StaticIntensity
from metering.site import Site
from serving.bundled_model import bundled_model_folder
from serving.placement.metering_setup import node_hardware
from serving.tuning.engine_fit import fit_engine_model
from serving.tuning.engine_model import EngineModel, Plane
from serving.tuning.forecast import forecast
from serving.tuning.lengths import Lengths
from serving.tuning.setting import Setting
from serving.tuning.simulation import Limits, simulate
from serving.tuning.slo import Slo
from serving.tuning.step_log import StepRecord
from serving.tuning.synthetic import Synthetic
from serving.tuning.workload import Workload
from serving.tuning.workload_file import parse_workload, write_workload
from tests.bench.tuning.stage import (
    CLIENTS,
    OUTPUT,
    PROMPT,
    REQUESTS,
    bench_of,
    configuration,
    machine,
    really_asked,
    tell,
)

CAP = 24
FITTED_CAPS = (8, 24, 12, 10)
WORKLOADS = {
    "steady": Synthetic(45, 1.2, PROMPT, OUTPUT, seed=101),
    "bursts": Synthetic(45, 1.5, PROMPT, OUTPUT, arrivals="gamma", burstiness=2.0, seed=102),
    "long prompts": Synthetic(28, 0.6, Lengths("uniform", 40, 120), Lengths("uniform", 16, 32), seed=103),
    "overload": Synthetic(60, 4.0, PROMPT, OUTPUT, seed=104),
}
COMPARED = {
    "ttft_p50_seconds": "TTFT p50",
    "ttft_p95_seconds": "TTFT p95",
    "itl_p50_seconds": "ITL p50",
    "itl_p95_seconds": "ITL p95",
    "output_tokens_per_second": "tokens/s",
    "joules_per_output_token": "J/token",
}
JUDGED = {"comparison": "as fitted", "at_its_pace": "at each run's pace"}
AIM = 0.15
OVERHEAD_SECONDS = 0.022
"""HTTP, template and tokeniser: of the sweep's run with a single client (``engine_model.json``)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="no engine: compare the stored runs with this engine model")
    arguments = parser.parse_args()
    path = arguments.out / "held_out.json"
    if arguments.model is not None:
        document = json.loads(path.read_text())
        compare(document, EngineModel.load(arguments.model))
        print(table(document))
        return
    document, model = measured()
    compare(document, model)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model.save(arguments.out / "held_out_engine_model.json")
    path.write_text(json.dumps(document, indent=1) + "\n")
    (arguments.out / "held_out.md").write_text(table(document))
    picture(document, arguments.out / "held_out.png")
    print(table(document))


def compare(document: dict[str, Any], model: EngineModel) -> None:
    for name, run in document["runs"].items():
        asked = parse_workload((json.dumps(row).encode() for row in run["asked"]), name)
        run["comparison"] = compared(asked, run["real"], model)
        if "steps" in run:
            steps = [StepRecord(**step) for step in run["steps"]]
            run["pace"] = pace(steps, model)
            run["at_its_pace"] = compared(asked, run["real"], slowed(model, run["pace"]))


def pace(steps: Sequence[StepRecord], model: EngineModel) -> float:
    """Seconds that the steps took over those that the model says; 1: the machine was as fast as when it was fitted."""
    said = sum(
        one.steps
        * model.step_seconds(
            one.sequence_steps / one.steps, one.prompt_tokens / one.steps, one.context_tokens / one.steps
        )
        for one in steps
    )
    return sum(one.seconds for one in steps) / said


def slowed(model: EngineModel, factor: float) -> EngineModel:
    planes = tuple(Plane(**{name: value * factor for name, value in asdict(plane).items()}) for plane in model.planes)
    return replace(model, planes=planes)


def measured() -> tuple[dict[str, Any], EngineModel]:
    document: dict[str, Any] = {"machine": machine(), "cap": CAP, "runs": {}, "fitted": []}
    records: list[StepRecord] = []
    config = configuration()
    bench = bench_of(config)
    closed = Synthetic(REQUESTS, 1.0, PROMPT, OUTPUT, seed=0).workload()
    try:
        for number, (cap, (name, synthetic)) in enumerate(zip(FITTED_CAPS, WORKLOADS.items(), strict=True)):
            bench.clients = CLIENTS
            before = len(bench.steps)
            figures = bench.run(Setting(cap), closed, seed=500 + number, hopeless=False)
            records += bench.steps[before:]
            document["fitted"].append({"cap": cap, "clients": CLIENTS, **figures})
            rate, grams = figures["output_tokens_per_second"], figures["grams_per_1k_output_tokens"]
            tell(f"closed, cap {cap}: {rate:.1f} tokens/s, itl p95 {figures['itl_p95_seconds']:.3f}, {grams:.4f} g/1k")
            workload = synthetic.workload()
            bench.clients = None
            before = len(bench.steps)
            real = bench.run(Setting(CAP), workload, seed=1000 + number, hopeless=False)
            asked = really_asked(workload, bench.last_outcomes)
            rows = [json.loads(line) for line in write_workload(asked)]
            steps = [asdict(step) for step in bench.steps[before:]]
            document["runs"][name] = {"workload": workload.describe(), "asked": rows, "real": real, "steps": steps}
            tell(f"{name}: ttft p95 {real['ttft_p95_seconds']:.2f} s, {real['output_tokens_per_second']:.1f} tokens/s")
    finally:
        bench.close()
    model = fit_engine_model(
        records,
        model="smollm2-135m-instruct",
        hardware=node_hardware(config).detected,
        precision="float32",
        architecture=load_architecture(bundled_model_folder()),
        runs=document["fitted"],
        source=f"closed loops at caps {FITTED_CAPS}, in turn with what it is judged by",
    )
    # only a run with a single client tells what a request waits outside the steps
    return document, replace(model, overhead_seconds=OVERHEAD_SECONDS)


def compared(asked: Workload, real: dict[str, Any], model: EngineModel) -> dict[str, dict[str, float | None]]:
    site = Site(StaticIntensity("WORLD").reading)
    predicted = forecast(asked, model, simulate(asked, model, Limits(CAP)), Slo(), site)
    return {
        key: {
            "real": real[key],
            "simulated": predicted[key],
            "error": None if not real[key] or predicted[key] is None else predicted[key] / real[key] - 1,
        }
        for key in COMPARED
    }


def table(document: dict[str, Any]) -> str:
    lines = [
        "| workload (pace) | figure | real engine | simulated | error | within 15 % | at its pace | within 15 % |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    within = {key: [0, 0] for key in JUDGED}
    for name, run in document["runs"].items():
        for key, label in COMPARED.items():
            cells = []
            for kind in JUDGED:
                error = run[kind][key]["error"]
                within[kind][0] += abs(error) <= AIM
                within[kind][1] += 1
                cells.append(f"{error:+.1%} | {'yes' if abs(error) <= AIM else '**no**'}")
            one = run["comparison"][key]
            what = f"{name} ({run['pace']:.2f}) | {label} | {one['real']:.3g} | {one['simulated']:.3g}"
            lines.append(f"| {what} | {' | '.join(cells)} |")
    told = "; ".join(f"{JUDGED[kind]}: {kept} of {of}" for kind, (kept, of) in within.items())
    return "\n".join([*lines, "", f"Within 15 %: {told}."]) + "\n"


def picture(document: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    both = figure.subplots(2, sharex=True)
    width = 0.8 / len(document["runs"])
    for number, (name, run) in enumerate(document["runs"].items()):
        for kind, axes in zip(JUDGED, both, strict=True):
            errors = [100 * run[kind][key]["error"] for key in COMPARED]
            axes.bar(np.arange(len(COMPARED)) + number * width, errors, width, label=name)
    for axes, kind in zip(both, JUDGED.values(), strict=True):
        axes.axhspan(-100 * AIM, 100 * AIM, color="#1b7837", alpha=0.12, label="within 15 %")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(np.arange(len(COMPARED)) + 0.4 - width / 2, list(COMPARED.values()))
        axes.set(ylabel="simulated against real, %", title=f"Held-out workloads, the engine model {kind}")
    both[0].legend(ncols=5, fontsize=8)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
