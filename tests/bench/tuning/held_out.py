"""The simulator against the real engine, on workloads that its engine model was not fitted to.

    python -m tests.bench.tuning.held_out --out tests/bench/tuning/results

Needs ``engine_model.json`` of ``fit.py`` there; writes ``held_out.json``, ``held_out.md`` and ``held_out.png``. Some
five minutes on one core. ``--again`` compares the stored real runs with the engine model as it is now.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from metering.intensity.static import StaticIntensity
from metering.site import Site
from serving.tuning.engine_model import EngineModel
from serving.tuning.forecast import forecast
from serving.tuning.lengths import Lengths
from serving.tuning.setting import Setting
from serving.tuning.simulation import Limits, simulate
from serving.tuning.slo import Slo
from serving.tuning.synthetic import Synthetic
from serving.tuning.workload import Workload
from serving.tuning.workload_file import parse_workload, write_workload
from tests.bench.tuning.stage import OUTPUT, PROMPT, bench_of, configuration, machine, really_asked, tell

CAP = 24
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
AIM = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--again", action="store_true", help="no engine: compare the stored runs anew")
    arguments = parser.parse_args()
    path = arguments.out / "held_out.json"
    document = json.loads(path.read_text()) if arguments.again else measured()
    model = EngineModel.load(arguments.out / "engine_model.json")
    for name, run in document["runs"].items():
        asked = parse_workload((json.dumps(row).encode() for row in run["asked"]), name)
        run["comparison"] = compared(asked, run["real"], model)
    path.write_text(json.dumps(document, indent=1) + "\n")
    (arguments.out / "held_out.md").write_text(table(document))
    picture(document, arguments.out / "held_out.png")
    print(table(document))


def measured() -> dict[str, Any]:
    document: dict[str, Any] = {"machine": machine(), "cap": CAP, "runs": {}}
    bench = bench_of(configuration())
    bench.clients = None
    try:
        for number, (name, synthetic) in enumerate(WORKLOADS.items()):
            workload = synthetic.workload()
            real = bench.run(Setting(CAP), workload, seed=1000 + number, hopeless=False)
            asked = really_asked(workload, bench.last_outcomes)
            rows = [json.loads(line) for line in write_workload(asked)]
            document["runs"][name] = {"workload": synthetic.workload().describe(), "asked": rows, "real": real}
            tell(f"{name}: ttft p95 {real['ttft_p95_seconds']:.2f} s, {real['output_tokens_per_second']:.1f} tokens/s")
    finally:
        bench.close()
    return document


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
        "| workload | figure | real engine | simulated | error | within 15 % |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for name, run in document["runs"].items():
        for key, label in COMPARED.items():
            one = run["comparison"][key]
            kept = "yes" if abs(one["error"]) <= AIM else "**no**"
            lines.append(
                f"| {name} | {label} | {one['real']:.3g} | {one['simulated']:.3g} | {one['error']:+.1%} | {kept} |"
            )
    return "\n".join(lines) + "\n"


def picture(document: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / len(document["runs"])
    for number, (name, run) in enumerate(document["runs"].items()):
        errors = [100 * run["comparison"][key]["error"] for key in COMPARED]
        axes.bar(np.arange(len(COMPARED)) + number * width, errors, width, label=name)
    axes.axhspan(-100 * AIM, 100 * AIM, color="#1b7837", alpha=0.12, label="within 15 %")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(np.arange(len(COMPARED)) + 0.4 - width / 2, list(COMPARED.values()))
    axes.set(ylabel="simulated against real, %", title="Simulator against the real engine, held-out workloads")
    axes.legend(ncols=5, fontsize=8)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
