"""``wattgate plan``: the fleet that a workload needs, simulated."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from serving.cli.figures import bad_input_exits
from serving.cli.option_groups import spread
from serving.cli.output import err, out
from serving.cli.workload_options import WorkloadOptions


class ObjectiveOption(StrEnum):
    GRAMS = "grams"
    COST = "cost"
    ENERGY = "energy"
    DEVICES = "devices"


_DRAWN_REQUESTS = 10_000
_WORKLOAD = WorkloadOptions(prompt_tokens="lognormal:220,0.8", output_tokens="lognormal:120,0.8")


@spread
def plan(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Config folder, file or hub id; repeat for variants (a quantised one, a smaller one)."),
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Catalogue name, as 'H100 SXM5'; may be repeated.")] = None,
    engine_model: Annotated[
        list[str] | None,
        typer.Option(help="Fitted engine model of `wattgate tune`: file, or model@device; may be repeated."),
    ] = None,
    devices_per_replica: Annotated[
        int, typer.Option(min=1, help="Devices that one replica's model is split over.")
    ] = 1,
    efficiency: Annotated[
        float, typer.Option(help="Share of the roofline that is reached, where nothing was fitted.")
    ] = 0.5,
    replicas: Annotated[int | None, typer.Option(min=1, help="A fleet of so many; default: the smallest.")] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(
            help="Bound, as ttft_p95<=500ms; may be repeated. itl is of the gaps between tokens; goodput goes by each "
            "answer's mean gap."
        ),
    ] = None,
    objective: Annotated[ObjectiveOption, typer.Option(help="What the best has least of.")] = ObjectiveOption.GRAMS,
    zone: Annotated[list[str] | None, typer.Option(help="Grid zone, as FRA; may be repeated.")] = None,
    intensity: Annotated[str | None, typer.Option(help="Carbon intensity instead of a zone's, as 429.")] = None,
    pue: Annotated[float, typer.Option(help="Facility energy over device energy.")] = 1.1,
    host_watts: Annotated[float, typer.Option(min=0, help="Host power beside each replica's devices.")] = 0.0,
    price_per_device_hour: Annotated[float | None, typer.Option(help="Your price of a device-hour.")] = None,
    price_per_kwh: Annotated[float | None, typer.Option(help="Your price of a kWh.")] = None,
    cap: Annotated[int, typer.Option(min=1, help="Live cap of each replica.")] = 64,
    max_batched_tokens: Annotated[int, typer.Option(min=16, help="Tokens in one step.")] = 2048,
    response_cache: Annotated[bool, typer.Option("--response-cache", help="Repeats are hits.")] = False,
    workload: WorkloadOptions = _WORKLOAD,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """SLO attainment, tokens/s, MFU, kW, grams and cost of fleets, and the smallest that keeps the SLO."""
    from metering.architecture import load_architecture
    from metering.errors import BadInput
    from metering.hardware.catalogue import find_device
    from serving.cli.estimate_options import site
    from serving.tuning.engine_library import find_engine_model
    from serving.tuning.engine_model import roofline_model
    from serving.tuning.plan import Option
    from serving.tuning.plan import plan as find
    from serving.tuning.simulation import Limits
    from serving.tuning.slo import Slo

    with bad_input_exits():
        bounds = Slo.parse(slo or ())
        if replicas is None and not bounds.bounds:
            raise BadInput("say what the fleet must keep, as --slo 'ttft_p95<=500ms', or how large it is: --replicas")
        engines = [find_engine_model(name) for name in engine_model or ()]
        if bool(model) != bool(device):
            raise BadInput("a model that was not fitted needs a --device, and a --device a --model")
        for name in model or ():
            architecture = load_architecture(name)
            label = Path(name).name or name
            engines += [
                roofline_model(architecture, label, find_device(one), count=devices_per_replica, efficiency=efficiency)
                for one in device or ()
            ]
        if not engines:
            raise BadInput("name what serves: --model with --device, or --engine-model")
        asked = workload.chosen(_DRAWN_REQUESTS)
        limits = Limits(cap, max(max_batched_tokens, cap), response_cache=response_cache)
        zones: list[str | None] = [*zone] if zone else [None]
        places = [site(place, intensity, pue, 4.0, price_per_device_hour, price_per_kwh) for place in zones]
        options = [Option(engine, place, limits, host_watts) for engine in engines for place in places]
        with err.status("simulating") as status:
            found = find(
                asked,
                options,
                bounds,
                replicas=replicas,
                objective=objective.value,
                told=lambda text: status.update(text),
            )
    if as_json:
        typer.echo(json.dumps(found, indent=2, allow_nan=False))
    else:
        _show(found)
    if not found["feasible"]:
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    table = Table(title=f"Simulated plan, SLO {found['slo']}", title_justify="left")
    for name in (
        "option",
        "replicas",
        "SLO",
        "goodput",
        "tokens/s",
        "TTFT p95",
        "ITL p95",
        "MFU",
        "kW",
        "g/1k",
        "cost",
    ):
        table.add_column(name, justify="left" if name == "option" else "right", overflow="fold")
    best = found["best"] and found["best"]["option"]
    for one in found["options"]:
        marked = f"[bold green]{one['option']}[/]" if one["option"] == best else one["option"]
        table.add_row(
            marked,
            str(one["replicas"]),
            "met" if one["meets_slo"] else "[red]broken[/]",
            f"{one['goodput_ratio']:.1%}",
            f"{one['output_tokens_per_second']:,.0f}",
            _text(one["ttft_p95_seconds"], "{:.3g} s"),
            _text(one["itl_p95_seconds"], "{:.3g} s"),
            _text(one["mfu_ratio"], "{:.1%}"),
            _text(one["kilowatts"], "{:.3g}"),
            _text(one["grams_per_1k_output_tokens"], "{:.3g}"),
            _text((one["cost"] or {}).get("total"), "{:.3g}"),
        )
    out.print(table)
    for note in found["notes"]:
        out.print(f"note: {note}", style="yellow", markup=False)


def _text(value: float | None, form: str) -> str:
    return "unknown" if value is None else form.format(value)
