"""Options of ``wattgate estimate`` turned into the library's objects."""

from __future__ import annotations

import os
from dataclasses import dataclass

from metering.errors import BadInput
from metering.hardware import Device, detect, find_device
from metering.hardware.device import DetectedHardware
from metering.intensity import StaticIntensity
from metering.site import Prices, Site
from metering.units import FLOP_RATE, INTENSITY, POWER, Dimension, parse_quantity
from serving.cli.output import Progress


def quantity(text: str | None, dimension: Dimension, bare_unit: str, name: str) -> float | None:
    """The option's quantity in the dimension's base unit; None where it was not given."""
    return None if text is None else parse_quantity(text, dimension, bare_unit=bare_unit, name=name)


def model_named(model: str) -> str:
    """The bundled model as a folder (prepared once, if it is not yet); any other as it is."""
    from serving.bundled_model import BUNDLED_MODEL, BundledModelError, prepare_bundled_model

    if model != BUNDLED_MODEL:
        return model
    try:
        return str(prepare_bundled_model(Progress()))
    except BundledModelError as error:
        raise BadInput(str(error)) from error


def device_named(name: str) -> Device:
    """``detected`` and ``cpu`` are this machine's; anything else is looked up in the catalogue."""
    if name.casefold() == "detected":
        return _measured(detect())
    if name.casefold() == "cpu":
        return _measured(detect(device="cpu"))
    return find_device(name)


def _measured(found: DetectedHardware) -> Device:
    """A CPU with the figures that a gateway has measured here, if one has."""
    from serving.placement.calibration import with_calibration

    if found.kind != "cpu":
        return found.device
    return with_calibration(found, sorted(os.sched_getaffinity(0))).device


def site(
    zone: str | None,
    intensity: str | None,
    pue: float,
    lifetime_years: float,
    per_device_hour: float | None,
    per_kwh: float | None,
) -> Site:
    """Raises ``BadInput`` for an unknown zone, a wrong unit, a PUE below 1 or a negative price."""
    for name, price in (("--price-per-device-hour", per_device_hour), ("--price-per-kwh", per_kwh)):
        if price is not None and not 0 <= price < float("inf"):
            raise BadInput(f"{name} must be at least 0, got {price}")
    given = quantity(intensity, INTENSITY, "g/kWh", "--intensity")
    if given is None:
        source = StaticIntensity(zone or "WORLD")
    else:
        source = StaticIntensity(zone or "given", grams_per_kwh=given, source="given on the command line")
    return Site(source.reading, pue, lifetime_years, Prices(per_device_hour, per_kwh))


@dataclass(frozen=True, slots=True)
class TrainingChip:
    """One chip of a training run."""

    peak_flops: float
    watts: float
    """Average or maximal, as the estimator takes them."""
    embodied_kilograms: float | None
    idle_watts: float | None
    watts_are_maximal: bool
    """They are the catalogue's, which knows no averages."""


def training_device(
    name: str | None, peak: str | None, watts: str | None, idle: str | None, *, needs_idle: bool
) -> TrainingChip:
    """What was given, else the catalogue's bf16 (or fp16) peak and its maximal watts."""
    device = find_device(name) if name else None
    peak_flops = quantity(peak, FLOP_RATE, "FLOP/s", "--device-peak")
    chip_watts = quantity(watts, POWER, "W", "--watts")
    if peak_flops is None:
        figure = (device.peak_for("bf16") or device.peak_for("fp16")) if device else None
        if figure is None:
            raise BadInput("give --device-peak, or a --device whose bf16 peak is in the catalogue")
        peak_flops = figure.value
    if chip_watts is None:
        if device is None or device.max_watts is None:
            raise BadInput("give --watts, or a --device whose power is in the catalogue")
        chip_watts = device.max_watts.value
    idle_watts = quantity(idle, POWER, "W", "--idle-watts")
    if needs_idle and idle_watts is None:
        if device is None or device.idle_watts is None:
            raise BadInput("give --idle-watts, or a --device whose idle power is in the catalogue")
        idle_watts = device.idle_watts.value
    mass = device.embodied_kilograms if device else None
    return TrainingChip(
        peak_flops, chip_watts, None if mass is None else mass.value, idle_watts, watts_are_maximal=watts is None
    )


def training_notes(chip: TrainingChip, estimator: str, efficiency: float | None) -> list[str]:
    """What the estimate assumes because it was not given."""
    notes = []
    if efficiency is None:
        notes.append("No --efficiency was given: the peak throughout, the least time and energy; real runs reach less.")
    if chip.watts_are_maximal and estimator == "llmcarbon":
        notes.append(
            f"The catalogue's maximal board power of {chip.watts:g} W stands for the average system power that this "
            "estimator takes; give --watts if you know it."
        )
    return notes
