"""``wattgate tune``: the setting with the fewest grams (or joules, or most tokens, or least cost) within an SLO."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.figures import bad_input_exits
from serving.cli.knob_options import KnobOptions
from serving.cli.option_groups import spread
from serving.cli.output import Progress, bar, fail, out
from serving.cli.serve import ConfigOption, EngineOption, GatewayOptions, ModelOption, terminate
from serving.cli.workload_options import WorkloadOptions

if TYPE_CHECKING:
    import optuna

    from metering.shape import ModelArchitecture
    from serving.config import GatewayConfig
    from serving.tuning.attached import AttachedGateway
    from serving.tuning.bench import Bench, GatewayBench
    from serving.tuning.load_curve import LoadCurve
    from serving.tuning.search import Budget, Goal, Tried
    from serving.tuning.setting import Setting, Space
    from serving.tuning.slo import Slo
    from serving.tuning.tune import Recommendation
    from serving.tuning.workload import Workload


class TuneObjective(StrEnum):
    GRAMS = "grams"
    JOULES = "joules"
    TOKENS = "tokens"
    COST = "cost"


_KNOBS = KnobOptions()
_DRAWN_REQUESTS = 64
_UNJUDGED = "how well the variants answer was not looked at: judge that on your own prompts before you change over"
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
    from serving.tuning.identity import columns_of, digest_of
    from serving.tuning.search import Budget, Goal, not_starting
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
            bench = _bench(priced, simulate, bounds, space, clients, progress)
        else:
            with _gateway_faults_end():
                gateway = _attached(url, model, progress)
            current = Setting(gateway.configured_cap)
            space = _within(knobs.space(current), gateway.highest_cap, progress)
            bench = _bench_of(gateway, loaded, bounds, clients, progress)
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
        with _closing(bench):
            tried, found, cut = _tuned(
                bench,
                asked,
                goal,
                space,
                current,
                notebook,
                Budget(trials, minutes * 60, repeats),
                workload.seed,
                progress,
            )
        if cut is not None and not tried:
            fail(cut.why, status=cut.status)
        goal = goal.counting_as(one.figures for one in tried)
        written, left_out = _write(folder, loaded, tried, found, goal, bench, simulate, alone=url is not None)
        curves = _load_curves(bench, asked, found, goal) if load_curve else []
        if curves:
            written += _drawn(curves, bounds, folder)
    unjudged = len(space.models) > 1
    notes = _notes(goal, asked, clients, tried, not_starting(notebook))
    if load_curve and not curves:
        notes.append("No load curve: these runs have too few steps, or too like ones, for an engine model.")
    figures = {
        "method": "simulated" if simulate else "measured",
        "identity": identity,
        **found.as_dict(),
        "trials": [one.as_dict() for one in tried],
        **({"answers": _UNJUDGED} if unjudged else {}),
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
            out.print(_UNJUDGED, soft_wrap=True)
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


@dataclass(frozen=True)
class _Cut:
    """Why it ended before its end."""

    why: str
    status: int


def _tuned(
    bench: Bench,
    asked: Workload,
    goal: Goal,
    space: Space,
    current: Setting,
    notebook: optuna.Study,
    budget: Budget,
    seed: int,
    progress: Progress,
) -> tuple[list[Tried], Recommendation, _Cut | None]:
    """Search and repeats; where they are cut short, what comes of what there is."""
    from serving.tuning.bench import CannotStart
    from serving.tuning.measure import GatewayAway
    from serving.tuning.search import search, trial_seconds, trials_of
    from serving.tuning.study import Pairs, Stopwatch, finished_trials
    from serving.tuning.tune import recommend

    watch = Stopwatch(notebook)
    if finished_trials(notebook):
        progress(f"going on after {finished_trials(notebook)} trials and {watch.seconds / 60:.1f} min")

    def over() -> str | None:
        watch.note()
        # both runs of a pair
        late = watch.seconds + 2 * trial_seconds(notebook) > budget.seconds
        return "the --minutes are over" if late else None

    def settle(over: Callable[[], str | None], told: Callable[[str], None]) -> Recommendation:
        tried = trials_of(notebook, goal.slo)
        pairs = Pairs(notebook)
        return recommend(bench, asked, goal, current, tried, repeats=budget.repeats, told=told, pairs=pairs, over=over)

    try:
        with bar("trials", budget.trials, f"of at most {budget.seconds / 60:g} min") as done:

            def told(one: Tried) -> None:
                progress(_line(one, goal, budget.trials))
                done(finished_trials(notebook))

            done(finished_trials(notebook))
            search(
                bench,
                asked,
                goal,
                space,
                current,
                notebook,
                budget,
                watch=watch,
                told=told,
                failed=lambda setting, why: progress(f"{setting} does not start, and is left out at any cap: {why}"),
                seed=seed,
            )
        with bar("repeats", 2 * budget.repeats) as done:
            begun = itertools.count()

            def repeating(text: str) -> None:
                progress(text)
                # the next best begins anew
                done(next(begun) % max(1, 2 * budget.repeats))

            found = settle(over, repeating)
    except KeyboardInterrupt:
        cut = _Cut("interrupted" if finished_trials(notebook) else "interrupted before the first trial was over", 130)
    except (CannotStart, GatewayAway) as error:
        cut = _Cut(str(error), 1)
    else:
        return trials_of(notebook, goal.slo), found, None
    finally:
        watch.note()
    return trials_of(notebook, goal.slo), settle(lambda: cut.why, progress), cut


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


def _notes(
    goal: Goal, asked: Workload, clients: int | None, tried: Sequence[Tried], dead: Sequence[Setting]
) -> list[str]:
    """What a reader has to know beside the figures."""
    from serving.tuning.search import arrival_bound

    notes = [] if goal.carbon is None else [f"{goal.carbon}."]
    rate = arrival_bound(asked, tried) if clients is None and goal.objective == "tokens" else None
    if rate is not None:
        notes.append(
            f"tokens/s are those that arrive ({rate:.3g}): the engine keeps up at the best setting, and a better one "
            "cannot show; send more (--rate), or use a closed loop (--clients)."
        )
    if dead:
        knobs = "; ".join(str(shell).partition(", ")[2] for shell in dead)
        notes.append(f"Did not start, and was left out at every cap ({knobs}): a new --study asks it again.")
    provisional = sum(one.figures.get("provisional_receipts") or 0 for one in tried)
    if provisional:
        notes.append(
            f"{provisional} receipts were not final when they were read: joules and grams of theirs may change."
        )
    return notes


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


def _bench(
    config: GatewayConfig, simulate: str | None, slo: Slo, space: Space, clients: int | None, progress: Progress
) -> Bench:
    from metering.intensity.static import StaticIntensity
    from metering.site import Prices, Site
    from serving.tuning.bench import GatewayBench, SimulatedBench
    from serving.tuning.engine_library import find_engine_model

    if simulate is not None:
        metering = config.metering
        place = StaticIntensity(metering.zone, grams_per_kwh=metering.intensity_grams_per_kwh)
        prices = Prices(metering.price_per_device_hour, metering.price_per_kwh)
        site = Site(place.reading, metering.pue, prices=prices)
        return SimulatedBench(find_engine_model(simulate), site, slo, clients)
    # loaded only where a gateway is started: the simulator needs none of it
    from serving.placement.metering_setup import node_hardware
    from serving.tuning.own_gateway import own_gateway

    return GatewayBench(
        own_gateway(config),
        slo,
        node_hardware(config).detected,
        space.highest_cap,
        progress,
        architecture=_architecture(config),
        clients=clients,
    )


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


def _attached(url: str, model: str | None, progress: Progress) -> AttachedGateway:
    """Raises ``GatewayAway`` and ``BadInput``."""
    from serving.tuning.attached import attach

    gateway = attach(url, model, os.environ.get("WATTGATE_ADMIN_KEY"), progress)
    progress(
        f"tuning the live cap of {gateway.model} at {gateway.shown_url}, now {gateway.configured_cap}; what other "
        "clients ask meanwhile is in its batches too"
    )
    return gateway


def _within(space: Space, highest_cap: int, progress: Progress) -> Space:
    from dataclasses import replace

    if space.highest_cap <= highest_cap:
        return space
    progress(f"caps above {highest_cap}, which the gateway's engine takes at once, are left out")
    return replace(space, highest_cap=highest_cap, lowest_cap=min(space.lowest_cap, highest_cap))


def _bench_of(
    gateway: AttachedGateway, config: GatewayConfig, slo: Slo, clients: int | None, progress: Progress
) -> Bench:
    from serving.tuning.bench import Elsewhere, GatewayBench

    elsewhere = Elsewhere(
        f"running: {gateway.model} at {gateway.shown_url}",
        gateway.model,
        os.environ.get("WATTGATE_API_KEY"),
        os.environ.get("WATTGATE_ADMIN_KEY"),
        gateway.confirm,
    )
    return GatewayBench(
        config,
        slo,
        None,
        gateway.highest_cap,
        progress,
        clients=clients,
        start=lambda config, tell: gateway.begin(config),
        elsewhere=elsewhere,
    )


def _architecture(config: GatewayConfig) -> ModelArchitecture | None:
    """Only of a model whose config lies on this machine; for the MFU of what is simulated later."""
    from metering.architecture import load_architecture
    from metering.errors import BadInput
    from serving.bundled_model import BUNDLED_MODEL, bundled_model_folder

    if config.engine.kind != "vllm":
        return None
    model = config.engine.model
    try:
        return load_architecture(bundled_model_folder() if model == BUNDLED_MODEL else model)
    except BadInput:
        return None


@contextmanager
def _closing(bench: Bench) -> Iterator[None]:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, terminate)
    try:
        yield
    finally:
        bench.close()


@contextmanager
def _gateway_faults_end() -> Iterator[None]:
    from serving.tuning.bench import CannotStart
    from serving.tuning.measure import GatewayAway

    try:
        yield
    except (CannotStart, GatewayAway) as error:
        fail(str(error), status=1)


def _line(one: Tried, goal: Goal, trials: int) -> str:
    from serving.tuning.search import errors_of

    value = one.figures.get(goal.key)
    shown = "unknown" if value is None else f"{value:.4g}"
    verdict = "meets the SLO" if one.meets else ("ended early" if one.figures["stopped_early"] else "breaks the SLO")
    failed = errors_of(one.figures)
    return (
        f"trial {one.number + 1} of at most {trials}: {one.setting}: {goal.key} {shown}, {verdict}"
        f"{f'; failed: {failed}' if failed else ''}"
    )


def _write(
    folder: Path,
    config: GatewayConfig,
    tried: Sequence[Tried],
    found: Any,
    goal: Goal,
    bench: Bench,
    simulate: str | None,
    *,
    alone: bool,
) -> tuple[list[Path], tuple[str, ...]]:
    """The files, and the secrets that the written configuration lacks. ``alone``: the gateway was not tune's own."""
    from metering.errors import BadInput
    from serving.tuning.bench import GatewayBench
    from serving.tuning.frontier import Picture, write_all
    from serving.tuning.recommended import recommended_yaml

    title = f"{bench.identity}; SLO {goal.slo}" + (" (simulated)" if simulate else "")
    picture = Picture(tuple(tried), found.front, goal, found.current, found.setting, found.knee, title)
    left_out: tuple[str, ...] = ()
    try:
        written = write_all(picture, folder)
        if found.setting is not None:
            path = folder / "recommended.yaml"
            why = found.why if found.setting.model is None else f"{found.why}\nOf a variant: {_UNJUDGED}."
            why = f"{why}\nOf a running gateway: put the cap into its own configuration." if alone else why
            text, left_out = recommended_yaml(found.setting.applied(config), why)
            path.write_text(text, encoding="utf-8")
            written.append(path)
        if isinstance(bench, GatewayBench) and not alone:
            written += _fit(folder, bench, found.setting or found.current)
    except OSError as error:
        raise BadInput(f"cannot write into {folder}: {error.strerror}; name another folder with --out") from None
    return written, left_out


def _load_curves(bench: Bench, asked: Workload, found: Recommendation, goal: Goal) -> list[LoadCurve]:
    """Of each setting whose engine is known well enough; the recommended one's under its own name."""
    from metering.intensity.static import StaticIntensity
    from metering.site import Site
    from serving.tuning.bench import GatewayBench, SimulatedBench
    from serving.tuning.load_curve import load_curve

    named = {"current": found.current}
    if found.setting is not None and found.setting != found.current:
        named["recommended"] = found.setting
    curves = []
    for name, setting in named.items():
        engine = None
        if isinstance(bench, SimulatedBench):
            engine = bench.engine
        elif isinstance(bench, GatewayBench):
            engine = bench.engine_model(setting)
        if engine is not None:
            site = Site(StaticIntensity("WORLD").reading)
            curves.append(load_curve(name, engine, setting, asked, goal.slo, site))
    return curves


def _drawn(curves: Sequence[LoadCurve], slo: Slo, folder: Path) -> list[Path]:
    from metering.errors import BadInput
    from serving.tuning.load_curve import write_all

    try:
        return write_all(curves, slo, folder)
    except OSError as error:
        raise BadInput(f"cannot write into {folder}: {error.strerror}; name another folder with --out") from None


def _fit(folder: Path, bench: GatewayBench, setting: Setting) -> list[Path]:
    """The engine model under ``setting``, where its runs had enough steps: beside the pictures, and in the user's
    library.
    """
    from serving.tuning.engine_library import keep

    fitted = bench.engine_model(setting)
    if fitted is None:
        return []
    path = folder / "engine_model.json"
    fitted.save(path)
    return [path, keep(fitted)]
