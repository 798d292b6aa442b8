"""``wattgate estimate``: what inference, training or manufacture would cost, before anything runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.figures import bad_input_exits, print_figures

app = typer.Typer(no_args_is_help=True, help="Estimate FLOPs, time, energy and carbon before anything runs.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Zone = Annotated[
    str | None,
    typer.Option(help="Grid zone for its annual mean, as USA or France; the world's mean by default."),
]
Intensity = Annotated[
    str | None, typer.Option(help="Carbon intensity instead of a zone's, as 429 (g/kWh) or 0.429kg/kWh.")
]
Pue = Annotated[float, typer.Option(help="Facility energy over device energy.")]
LifetimeYears = Annotated[float, typer.Option(help="Years over which the embodied mass is written off.")]
PerDeviceHour = Annotated[float | None, typer.Option(help="Your price of a device-hour: cost stands beside grams.")]
PerKwh = Annotated[float | None, typer.Option(help="Your price of a kWh.")]


class AttentionOption(StrEnum):
    CAUSAL = "causal"
    FULL = "full"


class EstimatorOption(StrEnum):
    LLMCARBON = "llmcarbon"
    NAMEPLATE = "nameplate"
    IDLE_AWARE = "idle_aware"


class PhaseOption(StrEnum):
    TRAINING = "training"
    INFERENCE = "inference"


@app.command()
def inference(
    model: Annotated[str, typer.Option(help="A model directory, a config.json, a hub id, or the bundled model.")],
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of the prompt, cached ones included.")],
    output_tokens: Annotated[int, typer.Option(help="Tokens generated: the prefill and one decode step less.")],
    cached_tokens: Annotated[int, typer.Option(help="Prompt tokens found in the prefix cache.")] = 0,
    attention: Annotated[
        AttentionOption, typer.Option(help="Count the causal half, or tokens x context as vLLM does.")
    ] = AttentionOption.CAUSAL,
    device: Annotated[
        str | None, typer.Option(help="A catalogue name as 'H100 SXM5', 'detected' for this machine, or 'cpu'.")
    ] = None,
    count: Annotated[int, typer.Option(help="Devices working together.")] = 1,
    batch: Annotated[int, typer.Option(help="Requests alike in the same forward passes.")] = 1,
    precision: Annotated[
        str | None, typer.Option(help="Of the arithmetic, as bf16 or fp8; the config's dtype by default.")
    ] = None,
    efficiency: Annotated[float, typer.Option(help="Share of the roofline that is reached.")] = 1.0,
    estimator: Annotated[
        EstimatorOption,
        typer.Option(
            help="Of the energy. idle_aware: idle watts and the roofline's share of what lies above. nameplate: "
            "maximal watts times the MFU. llmcarbon: average system watts."
        ),
    ] = EstimatorOption.IDLE_AWARE,
    watts: Annotated[
        str | None, typer.Option(help="Average system power of one device, for llmcarbon: 330 (W) or 330W.")
    ] = None,
    zone: Zone = None,
    intensity: Intensity = None,
    pue: Pue = 1.0,
    lifetime_years: LifetimeYears = 4.0,
    peak: Annotated[str | None, typer.Option(help="Override the device's peak, as 989TFLOP/s.")] = None,
    bandwidth: Annotated[str | None, typer.Option(help="Override its memory bandwidth, as 3350GB/s.")] = None,
    idle_watts: Annotated[str | None, typer.Option(help="Override its idle power, as 70W.")] = None,
    max_watts: Annotated[str | None, typer.Option(help="Override its maximal power, as 700W.")] = None,
    embodied: Annotated[str | None, typer.Option(help="Override its embodied mass, as 164kg.")] = None,
    price_per_device_hour: PerDeviceHour = None,
    price_per_kwh: PerKwh = None,
    lora: Annotated[
        Path | None, typer.Option(help="Folder of a LoRA adapter in PEFT's form: its own matrices are counted too.")
    ] = None,
    assume: Annotated[str | None, typer.Option(help="Count an unknown architecture as this family, as llama.")] = None,
    as_json: Json = False,
) -> None:
    """FLOPs by part, roofline time, energy and grams of one request."""
    from metering.architecture import load_architecture
    from metering.lora import load_adapter, with_adapter
    from metering.planner import estimate_inference
    from metering.units import BANDWIDTH, FLOP_RATE, MASS, POWER
    from serving.cli.estimate_options import device_named, model_named, quantity, site

    with bad_input_exits():
        architecture = load_architecture(model_named(model), assume=assume)
        if lora is not None:
            architecture = with_adapter(architecture, load_adapter(lora))
        chosen = None
        if device is not None:
            at = precision or architecture.dtype
            kilograms = quantity(embodied, MASS, "kg", "--embodied")
            figures = {
                "peak_flops": None if peak is None else {at: quantity(peak, FLOP_RATE, "FLOP/s", "--peak")},
                "bandwidth_bytes_per_second": quantity(bandwidth, BANDWIDTH, "B/s", "--bandwidth"),
                "idle_watts": quantity(idle_watts, POWER, "W", "--idle-watts"),
                "max_watts": quantity(max_watts, POWER, "W", "--max-watts"),
                "embodied_kilograms": None if kilograms is None else kilograms / 1000,
            }
            chosen = device_named(device).overridden(figures, "given on the command line")
        plan = estimate_inference(
            architecture,
            prompt_tokens,
            output_tokens,
            cached_tokens=cached_tokens,
            attention=attention.value,
            device=chosen,
            count=count,
            batch=batch,
            precision=precision,
            efficiency=efficiency,
            site=site(zone, intensity, pue, lifetime_years, price_per_device_hour, price_per_kwh),
            estimator=estimator.value,
            average_watts=quantity(watts, POWER, "W", "--watts"),
        )
    print_figures(plan.as_dict(), as_json=as_json, title=f"Inference of {model}")


@app.command()
def training(
    params: Annotated[str, typer.Option(help="Parameters, active ones for a mixture of experts: 175e9 or 175B.")],
    tokens: Annotated[str, typer.Option(help="Training tokens: 300e9 or 300B.")],
    device_peak: Annotated[
        str | None, typer.Option(help="Peak of one chip: 125e12 (FLOP/s) or 125TFLOP/s; or name a --device.")
    ] = None,
    efficiency: Annotated[
        float | None, typer.Option(help="Share of the peak reached over the run; all of it, with a note, by default.")
    ] = None,
    chips: Annotated[int, typer.Option(help="Chips working together.")] = 1,
    watts: Annotated[
        str | None, typer.Option(help="Average system power of one chip: 330 (W) or 330W; or name a --device.")
    ] = None,
    pue: Pue = 1.0,
    intensity: Intensity = None,
    zone: Zone = None,
    device: Annotated[str | None, typer.Option(help="Catalogue device, for its bf16 peak, watts and mass.")] = None,
    estimator: Annotated[
        EstimatorOption,
        typer.Option(
            help="llmcarbon: average watts. nameplate: watts are maximal, times the efficiency. idle_aware: the "
            "efficiency's share of what lies above the idle watts."
        ),
    ] = EstimatorOption.LLMCARBON,
    idle_watts: Annotated[str | None, typer.Option(help="Idle power of one chip, for idle_aware: 70 (W).")] = None,
    lifetime_years: LifetimeYears = 4.0,
    price_per_device_hour: PerDeviceHour = None,
    price_per_kwh: PerKwh = None,
    as_json: Json = False,
) -> None:
    """Time, energy and carbon of a training run (LLMCarbon: 6 P D FLOPs)."""
    from metering.training import estimate_training
    from metering.units import COUNT, parse_quantity
    from serving.cli.estimate_options import site, training_device, training_notes

    with bad_input_exits():
        parameters = parse_quantity(params, COUNT, name="--params")
        trained_on = parse_quantity(tokens, COUNT, name="--tokens")
        terms = site(zone, intensity, pue, lifetime_years, price_per_device_hour, price_per_kwh)
        needs_idle = estimator is EstimatorOption.IDLE_AWARE
        chip = training_device(device, device_peak, watts, idle_watts, needs_idle=needs_idle)
        plan = estimate_training(
            parameters,
            trained_on,
            device_peak_flops=chip.peak_flops,
            efficiency=1.0 if efficiency is None else efficiency,
            chips=chips,
            average_watts=chip.watts,
            pue=pue,
            intensity_grams_per_kwh=terms.intensity.grams_per_kwh,
            embodied_kilograms=chip.embodied_kilograms,
            lifetime_years=lifetime_years,
            prices=terms.prices,
            estimator=estimator.value,
            idle_watts=chip.idle_watts,
        )
    figures = {**plan.as_dict(), "pue": pue, "zone": terms.intensity.zone, "source": terms.intensity.source}
    figures["intensity_grams_per_kwh"] = terms.intensity.grams_per_kwh
    figures["notes"] = training_notes(chip, estimator.value, efficiency)
    print_figures(figures, as_json=as_json, title="Training")


@app.command()
def embodied(
    spec: Annotated[Path, typer.Option(help="YAML file with a list of parts: logic, dram, ssd, hdd.")],
    as_json: Json = False,
) -> None:
    """Embodied carbon of a device built from parts (ACT)."""
    from metering.embodied import load_parts

    with bad_input_exits():
        device = load_parts(spec)
    parts = [
        {
            "kind": part.kind,
            "part": part.label,
            "count": part.count,
            "silicon_kilograms": part.silicon_grams / 1000,
            "packaging_kilograms": part.packaging_grams / 1000,
            "embodied_kilograms": part.grams / 1000,
        }
        for part in device.parts
    ]
    figures = {"embodied_kilograms": device.kilograms, "parts": parts, "method": "modelled", "estimator": "act"}
    print_figures(figures, as_json=as_json, title=f"Embodied carbon of {spec.name}")


@app.command()
def mfu(
    params: Annotated[str, typer.Option(help="Parameters, active ones for a mixture of experts: 540e9 or 540B.")],
    layers: Annotated[int, typer.Option(help="Layers.")],
    heads: Annotated[int, typer.Option(help="Query heads.")],
    head_dim: Annotated[int, typer.Option(help="Size of a head.")],
    sequence: Annotated[int, typer.Option(help="Tokens of a sequence, or the mean context in inference.")],
    tokens_per_second: Annotated[str, typer.Option(help="Observed, over all chips.")],
    chips: Annotated[int, typer.Option(help="Chips working together.")],
    device_peak: Annotated[str, typer.Option(help="Peak of one chip: 275e12 (FLOP/s) or 275TFLOP/s.")],
    phase: Annotated[
        PhaseOption, typer.Option(help="6N + 12LHQT FLOPs per token in training, 2N + 4LHQT in inference.")
    ] = PhaseOption.TRAINING,
    as_json: Json = False,
) -> None:
    """Model FLOPs utilisation from an observed token rate (PaLM, appendix B)."""
    from metering.mfu import model_flops_utilisation
    from metering.units import COUNT, FLOP_RATE, parse_quantity

    with bad_input_exits():
        used = model_flops_utilisation(
            parameters=parse_quantity(params, COUNT, name="--params"),
            layers=layers,
            heads=heads,
            head_size=head_dim,
            sequence_tokens=sequence,
            tokens_per_second=parse_quantity(tokens_per_second, COUNT, name="--tokens-per-second"),
            chips=chips,
            peak_flops=parse_quantity(device_peak, FLOP_RATE, bare_unit="FLOP/s", name="--device-peak"),
            phase=phase.value,
        )
    notes = ["Above 1: the FLOP model or the peak is wrong."] if used.mfu_ratio > 1 else []
    figures = {
        "mfu_ratio": used.mfu_ratio,
        "mfu_without_attention_ratio": used.mfu_without_attention_ratio,
        "flops_per_token": used.flops_per_token,
        "notes": notes,
    }
    print_figures(figures, as_json=as_json, title="Model FLOPs utilisation")
