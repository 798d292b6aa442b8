"""``wattgate hardware``: what was detected, where each figure comes from, and what is unknown."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from serving.cli.figures import bad_input_exits, print_figures

if TYPE_CHECKING:
    from metering.hardware.device import DetectedHardware

app = typer.Typer(help="Show the hardware detected, the source of each figure, and what is unknown.")

_UNITS = {
    "bandwidth_bytes_per_second": (1e9, "GB/s"),
    "memory_bytes": (1e9, "GB"),
    "idle_watts": (1.0, "W"),
    "max_watts": (1.0, "W"),
    "die_area_mm2": (1.0, "mm2"),
    "process_nm": (1.0, "nm"),
    "embodied_kilograms": (1.0, "kg CO2e"),
}


@app.callback(invoke_without_command=True)
def hardware(
    device: Annotated[
        str | None, typer.Option(help="Show this catalogue device instead; 'cpu' for this machine's CPU.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Hardware threads that the engine may use.", min=1)] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure FLOP/s and bandwidth of the CPU, about two seconds.")
    ] = False,
    catalogue: Annotated[bool, typer.Option("--catalogue", help="List the devices known.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Detect by NVML and CPU flags; figures nobody published are unknown, never guessed.

    Also how this machine's power is read, and why not by a better meter.
    """
    from metering.errors import BadInput
    from metering.hardware import catalogue as known_devices
    from metering.hardware import cpu_models, detect, find_device
    from metering.hardware.calibrate import calibrate as measure
    from metering.hardware.device import DetectedHardware

    if catalogue:
        listing = {"devices": list(known_devices()), "cpus": list(cpu_models())}
        print_figures(listing, as_json=as_json, title="Hardware catalogue")
        return
    with bad_input_exits():
        if device is not None and device.casefold() != "cpu":
            if calibrate:
                raise BadInput("--calibrate measures this machine's CPU: leave --device away")
            found = DetectedHardware(find_device(device))
        else:
            if calibrate:
                measured = measure()
                found = measured.applied(detect(device="cpu", threads=threads or measured.threads))
                keep = (
                    f"To keep these, configure metering.peak_flops {measured.flops_per_second:.4g} and "
                    f"metering.bandwidth_bytes_per_second {measured.bandwidth_bytes_per_second:.4g}."
                )
                found = replace(found, device=replace(found.device, notes=(*found.device.notes, keep)))
            else:
                found = detect(device=device, threads=threads)
    # a device that is only named has no meter here
    power = _power(found) if device is None or device.casefold() == "cpu" else ()
    if as_json:
        print_figures(found.as_dict() | {"power": list(power)}, as_json=True, title="")
    else:
        _print(found.as_dict(), power)


def _power(found: DetectedHardware) -> tuple[str, ...]:
    """How the node's meter would get the engine's energy with the default settings, a line a decision."""
    from metering.hardware import detect_cpu
    from serving.engines.settings import VllmSettings
    from serving.engines.vllm import engine_cores
    from serving.placement.metering_setup import engine_power

    cores: tuple[int, ...] = ()
    if found.device.kind == "cpu":
        cores = engine_cores(VllmSettings(), sorted(os.sched_getaffinity(0)))
    plan = engine_power(found, cores, detect_cpu())
    for meter in plan.meters:
        meter.close()
    return plan.explanation


def _print(found: dict[str, Any], power: tuple[str, ...]) -> None:
    console = Console()
    count = f"{found['count']} x " if found["count"] > 1 else ""
    table = Table(title=f"{count}{found['name']} ({found['kind']})", title_justify="left")
    for column in ("figure", "value", "source"):
        table.add_column(column, justify="right" if column == "value" else "left", overflow="fold")
    for precision, figure in found["peak_flops"].items():
        table.add_row(f"peak {precision}", f"{figure['value'] / 1e12:,.4g} TFLOP/s", figure["source"])
    if not found["peak_flops"]:
        table.add_row("peak", "unknown", "")
    for name, (scale, unit) in _UNITS.items():
        figure = found[name]
        label = name.removesuffix("_bytes_per_second").replace("_", " ")
        if figure is None:
            table.add_row(label, "unknown", "")
        else:
            table.add_row(label, f"{figure['value'] / scale:,.4g} {unit}", figure["source"])
    table.add_row("embodied scope", found["embodied_scope"] or "unknown", "")
    console.print(table)
    for line in power:
        console.print(line, markup=False, highlight=False)
    for note in found["notes"]:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False)
    if found["unknown"]:
        console.print(f"unknown: {', '.join(found['unknown'])}; configure them to have what depends on them.")
