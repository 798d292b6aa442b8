"""``wattgate tune``: the setting with the fewest grams (or joules, or most tokens, or least cost) within an SLO."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.figures import bad_input_exits
from serving.cli.knob_options import KnobOptions
from serving.cli.option_groups import spread
from serving.cli.output import Progress, fail, out
from serving.cli.serve import ConfigOption, EngineOption, GatewayOptions, ModelOption
from serving.cli.tune_bench import attached, bench_of, closing, gateway_faults_end, own_bench, within
from serving.cli.tune_output import UNJUDGED, drawn, load_curves, notes_of, write
from serving.cli.tune_sitting import Sitting, tuned
from serving.cli.workload_options import WorkloadOptions

if TYPE_CHECKING:
    from serving.config import GatewayConfig
    from serving.tuning.bench import Bench
    from serving.tuning.workload import Workload


class TuneObjective(StrEnum):
    GRAMS = "grams"
    JOULES = "joules"
    TOKENS = "tokens"
    COST = "cost"


_KNOBS = KnobOptions()
_DRAWN_REQUESTS = 64
_WORKLOAD = WorkloadOptions(prompt_tokens="lognormal:64,0.5", output_tokens="lognormal:32,0.5")


@spread
def tune(
    config: ConfigOption = None,
    engine: EngineOption = None,
    model: ModelOption = None,
    simulate: Annotated[
        str | None,
        typer.Option(help="Tune the simulator behind this fitted engine model (file, or model@device of one kept)."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="Tune the cap of this running gateway (its model: --model): WATTGATE_ADMIN_KEY holds its cap, and "
            "WATTGATE_API_KEY asks it, if set."
        ),
    ] = None,
    objective: Annotated[TuneObjective, typer.Option(help="What to have the least of (tokens/s: the most).")] = (
        TuneObjective.GRAMS
    ),
    slo: Annotated[list[str] | None, typer.Option(help="Bound, as itl_p95<=50ms; may be repeated.")] = None,
    knobs: KnobOptions = _KNOBS,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try at most.")] = 15,
    minutes: Annotated[
        float,
        typer.Option(
            help="Time for all of it, earlier sittings of the study included; up to half is kept for the repeats."
        ),
    ] = 15.0,
    repeats: Annotated[int, typer.Option(min=0, help="Alternating repeats of the current and the best setting.")] = 3,
    study: Annotated[
        Path | None,
        typer.Option(
            help="File to keep trials and repeats in, from which the same command goes on after an interruption; "
            "default: study.journal in --out."
        ),
    ] = None,
    clients: Annotated[int | None, typer.Option(min=1, help="Closed loop of so many clients.")] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the config, the pictures and the engine model.")] = (
        Path("tuning")
    ),
    load_curve: Annotated[
        bool,
        typer.Option(
            "--load-curve",
            help="Also draw latency against offered load, of the current and the recommended setting: simulated, by "
            "the engine model of their runs.",
        ),
    ] = False,
    price_per_device_hour: Annotated[
        float | None, typer.Option(help="Your price, for the objective cost; default: the configuration's.")
    ] = None,
    workload: WorkloadOptions = _WORKLOAD,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Search the settings on a gateway of its own, or the live cap of one that runs (--url); confirm the best against
    the current one, write a config for `wattgate serve`, the frontier's pictures, and (of its own) the engine model
    that `wattgate plan` takes."""
    from metering.errors import BadInput
    from serving.tuning.goal import Goal
    from serving.tuning.identity import columns_of, digest_of
    from serving.tuning.search import Budget, not_starting
    from serving.tuning.setting import Setting
    from serving.tuning.slo import Slo
    from serving.tuning.study import open_study

    loaded = GatewayOptions(config, engine, None if url is not None else model).gathered().config
    progress = Progress()
    with bad_input_exits():
        bounds = Slo.parse(slo or ())
        priced = _priced(loaded, price_per_device_hour)
        if url is not None:
            _refuse_with_url(engine, simulate, price_per_device_hour)
            knobs.refuse_restarting()
        elif objective is TuneObjective.COST and not _has_price(priced):
            raise BadInput("the objective cost needs your price: --price-per-device-hour, or metering.price_per_kwh")
        goal = Goal(objective.value, bounds, priced.metering.price_per_device_hour, _devices_of_a_replica(loaded))
        if not minutes > 0:
            raise BadInput(f"--minutes must be positive, got {minutes}")
        knobs.refuse_idle(loaded, simulate)
        asked = workload.chosen(_DRAWN_REQUESTS)
        bench: Bench
        if url is None:
            current = Setting.of(loaded)
            space = knobs.space(current)
            bench = own_bench(priced, simulate, bounds, space, clients, progress)
        else:
            with gateway_faults_end():
                gateway = attached(url, model, progress)
            current = Setting(gateway.configured_cap)
            space = within(knobs.space(current), gateway.highest_cap, progress)
            bench = bench_of(gateway, loaded, bounds, clients, progress)
        details = {"workload": columns_of(asked), "configuration": _compared_settings(priced, simulate, bench, url)}
        identity = {
            "engine": bench.identity,
            "objective": objective.value,
            "slo": str(bounds),
            "workload": f"{asked.name}, {len(asked)} requests, {_lengths(asked)}, {digest_of(details['workload'])}",
            "space": str(space),
            "loop": "open" if clients is None else f"closed, {clients} clients",
            "configuration": digest_of(details["configuration"]),
        }
        path = _study_file(study, folder)
        notebook = open_study(path, identity, workload.seed, details, progress)
        with closing(bench):
            budget = Budget(trials, minutes * 60, repeats)
            sitting = Sitting(bench, asked, goal, space, current, notebook, budget, workload.seed)
            tried, found, cut = tuned(sitting, progress)
        if cut is not None and not tried:
            fail(cut.why, status=cut.status)
        goal = goal.counting_as(one.figures for one in tried)
        written, left_out = write(folder, loaded, tried, found, goal, bench, simulate, alone=url is not None)
        curves = load_curves(bench, asked, found, goal) if load_curve else []
        if curves:
            written += drawn(curves, bounds, folder)
    unjudged = len(space.models) > 1
    notes = notes_of(goal, asked, clients, tried, not_starting(notebook))
    if load_curve and not curves:
        notes.append("No load curve: these runs have too few steps, or too like ones, for an engine model.")
    figures = {
        "method": "simulated" if simulate else "measured",
        "identity": identity,
        **found.as_dict(),
        "trials": [one.as_dict() for one in tried],
        **({"answers": UNJUDGED} if unjudged else {}),
        "carbon": None if goal.carbon is None else goal.carbon.as_dict(),
        "notes": notes,
        **({"load_curves": [curve.as_dict() for curve in curves]} if curves else {}),
        "interrupted": None if cut is None else cut.why,
        "study": str(path),
        "files": [str(file) for file in written],
        "left_out": left_out,
    }
    if as_json:
        typer.echo(json.dumps(figures, indent=2, allow_nan=False))
    else:
        out.print(f"\n[bold]{'Recommended' if found.setting else 'Infeasible'}[/bold]  {found.why}", soft_wrap=True)
        if unjudged:
            out.print(UNJUDGED, soft_wrap=True)
        for note in notes:
            out.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)
        for file in written:
            out.print(f"wrote {file}", soft_wrap=True)
        if left_out:
            out.print(f"left out of recommended.yaml, give again: {', '.join(left_out)}", soft_wrap=True, markup=False)
    if cut is not None:
        fail(f"{cut.why}: this is of what there was by then; the same command goes on from {path}", status=cut.status)
    if found.setting is None:
        raise typer.Exit(1)


def _study_file(named: Path | None, folder: Path) -> Path:
    from metering.errors import BadInput

    if named is not None:
        return named
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write into {folder}: {error.strerror}; name another folder with --out") from None
    return folder / "study.journal"


def _compared_settings(config: GatewayConfig, simulate: str | None, bench: Bench, url: str | None) -> dict[str, str]:
    """What a study's trials must have in common; of a gateway elsewhere nothing is known but its name."""
    from serving.tuning.bench import SimulatedBench
    from serving.tuning.engine_library import find_engine_model
    from serving.tuning.identity import digest_of_engine_model, settings_of

    if url is not None:
        return {}
    settings = settings_of(config)
    named = config.engine.simulated.engine_model if config.engine.kind == "simulated" else None
    if isinstance(bench, SimulatedBench):
        settings["engine model"] = digest_of_engine_model(bench.engine)
    elif named is not None:
        settings["engine model"] = digest_of_engine_model(find_engine_model(named))
    return settings


def _priced(config: GatewayConfig, price_per_device_hour: float | None) -> GatewayConfig:
    """With the option's price in place of the configuration's, so that receipts tell it with the electricity's."""
    if price_per_device_hour is None:
        return config
    metering = config.metering.model_copy(update={"price_per_device_hour": price_per_device_hour})
    return config.model_copy(update={"metering": metering})


def _has_price(config: GatewayConfig) -> bool:
    return config.metering.price_per_device_hour is not None or config.metering.price_per_kwh is not None


def _devices_of_a_replica(config: GatewayConfig) -> int:
    return config.engine.vllm.tensor_parallel_size if config.engine.kind == "vllm" else 1


def _lengths(workload: Workload) -> str:
    """What tells two workloads of one name apart: another prompt's length makes another study."""
    return f"{int(workload.prompt_tokens.sum())} prompt and {int(workload.output_tokens.sum())} output tokens"


def _refuse_with_url(engine: str | None, simulate: str | None, price: float | None) -> None:
    """Raises ``BadInput``."""
    from metering.errors import BadInput

    for name, said in (("--engine", engine), ("--simulate", simulate)):
        if said is not None:
            raise BadInput(f"{name} is for a gateway that tune starts: leave it away, or leave --url away")
    if price is not None:
        raise BadInput(
            "the gateway at --url tells its own cost (its metering.price_per_device_hour and price_per_kwh): leave "
            "--price-per-device-hour away"
        )
