"""The search put to the exhaustive sweep's own measurements: does it find the sweep's best with a third of its trials?

    python -m tests.bench.tuning.search_on_sweep --out tests/bench/tuning/results

No engine runs: a trial's figures are those that the real engine gave at that cap (``sweep.json``, odd caps as the even
one below), its steps those of that run (``steps.jsonl``). So the search is judged without the machine's drift between
the sweep and the search. Also draws the sweep: ``frontier.png`` and ``frontier.md``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metering.intensity.static import StaticIntensity
from metering.site import Site
from serving.placement.metering_setup import node_hardware
from serving.tuning.bench import predicted
from serving.tuning.engine_fit import fit_engine_model
from serving.tuning.frontier import Picture, markdown, write_png
from serving.tuning.goal import Goal, Tried
from serving.tuning.pareto import knee, pareto
from serving.tuning.search import Budget, search
from serving.tuning.setting import Setting, Space
from serving.tuning.slo import Slo
from serving.tuning.step_log import StepRecord
from serving.tuning.study import open_study
from serving.tuning.synthetic import Synthetic
from serving.tuning.workload import Workload
from tests.bench.tuning.stage import CLIENTS, OUTPUT, PROMPT, REQUESTS, configuration

PROMISES = (["itl_p95<=300ms"], ["itl_p95<=400ms"], [])
STARTS = (32, 8, 2)
TRIALS = 5
"""Under a third of the sweep's 17."""


class Sweep:
    """A ``Bench`` that looks its runs up."""

    identity = "the sweep's measurements"

    def __init__(self, folder: Path, slo: Slo) -> None:
        self.runs = {run["cap"]: run for run in json.loads((folder / "sweep.json").read_text())["runs"]}
        self._steps: dict[int, list[StepRecord]] = {}
        for line in (folder / "steps.jsonl").read_text().splitlines():
            cap, steps, decoded, prompt, context, seconds = json.loads(line)
            self._steps.setdefault(cap, []).append(StepRecord(decoded, prompt, context, seconds, steps))
        self._slo = slo
        self._tried: list[int] = []
        self._hardware = node_hardware(configuration()).detected
        self._site = Site(StaticIntensity("WORLD").reading)

    def _measured(self, cap: int) -> int:
        return max(known for known in self.runs if known <= cap)

    def run(self, setting: Setting, workload: Workload, *, seed: int, hopeless: bool) -> dict[str, Any]:
        cap = self._measured(setting.cap)
        self._tried.append(cap)
        return {**self.runs[cap], "stopped_early": False}

    def predict(self, settings: Sequence[Setting], workload: Workload) -> list[dict[str, Any]] | None:
        model = fit_engine_model(
            [record for cap in self._tried for record in self._steps[cap]],
            model="smollm2-135m-instruct",
            hardware=self._hardware,
            precision="float32",
            runs=[self.runs[cap] | {"clients": CLIENTS} for cap in self._tried],
        )
        # the chat template, as the sweep's engine counted it
        asked = replace(workload, prompt_tokens=workload.prompt_tokens + 31)
        return [predicted(model, one, asked, CLIENTS, self._slo, self._site) for one in settings]

    def close(self) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    workload = Synthetic(REQUESTS, 1.0, PROMPT, OUTPUT, seed=0).workload()
    rows = []
    for texts in PROMISES:
        slo = Slo.parse(texts)
        for start in STARTS:
            bench = Sweep(arguments.out, slo)
            goal, runs = counted(bench, slo)
            best = min((one for one in runs if slo.met(one)), key=goal.value)
            study = open_study(None, {"slo": str(slo)}, 0)
            tried = search(bench, workload, goal, Space(1, 32), Setting(start), study, Budget(TRIALS))
            found = min((one for one in tried if one.meets), key=lambda one: goal.value(one.figures), default=None)
            rows.append(
                {
                    "slo": str(slo),
                    "start": start,
                    "tried": [one.setting.cap for one in tried],
                    "sweep_best_cap": best["cap"],
                    "found_cap": None if found is None else found.setting.cap,
                    "over_best": None if found is None else goal.value(found.figures) / goal.value(best) - 1,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    (arguments.out / "search_on_sweep.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(arguments.out)


def counted(bench: Sweep, slo: Slo) -> tuple[Goal, list[dict[str, Any]]]:
    """The sweep's runs as a search ranks them: with embodied grams, and all at one grid."""
    goal = Goal("grams", slo).counting_as(bench.runs.values())
    return goal, [goal.rated(run, Setting(cap)) for cap, run in bench.runs.items()]


def draw(folder: Path) -> None:
    slo = Slo.parse(PROMISES[0])
    goal, runs = counted(Sweep(folder, slo), slo)
    # a cap of 1 ran with a single client: its end to end time is of another loop
    tried = tuple(
        Tried(number, Setting(run["cap"]), run, slo.met(run), slo.worst_excess(run))
        for number, run in enumerate(runs)
        if run["cap"] > 1
    )
    every = tuple(pareto([Tried(one.number, one.setting, one.figures, True, 0.0) for one in tried], goal))
    best = min((one for one in tried if one.meets), key=lambda one: goal.value(one.figures))
    title = f"SmolLM2-135M on one EPYC core, {CLIENTS} clients; SLO {slo}; {goal.carbon}"
    picture = Picture(tried, every, goal, Setting(32), best.setting, knee(every, goal), title)
    write_png(picture, folder / "frontier.png", dots_per_inch=70)
    (folder / "frontier.md").write_text(markdown(picture))


if __name__ == "__main__":
    main()
