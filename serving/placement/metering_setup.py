"""From the configuration and what the machine has to the node's meter and the model's profile."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from metering.architecture import architecture_from_config
from metering.errors import BadInput
from metering.hardware.detect import detect, detect_cpu
from metering.hardware.device import DetectedHardware, Device, Figure
from metering.idle import IdlePolicy
from metering.model_profile import ModelProfile
from metering.node import UNMETERED, NodeMeter
from metering.node_settings import Embodied, NodeSettings
from metering.power.base import Boundary, Component, LoadPower, PowerMeter, PowerUnavailable
from metering.power.choose import Candidate, PowerPlan, choose_meter
from metering.power.model import DRAM_WATTS_PER_GB, CpuPowerModel, IdleAwarePower
from metering.power.rapl import POWERCAP, RaplMeter, find_zones
from metering.weights import WeightKind
from metering.work import Method
from serving.config import GatewayConfig
from serving.engines.base import EngineModel
from serving.engines.settings import EngineSettings
from serving.engines.vllm import engine_cores, has_gpu
from serving.metering_settings import MeteringSettings
from serving.placement.calibration import with_calibration
from serving.placement.intensity import first_stamp
from serving.placement.placed import engine_config, placed_models

SECONDS_PER_YEAR = 365 * 24 * 3600.0
"""SCI's worked example (ISO/IEC 21031) counts years of 365 days."""


@dataclass(frozen=True, slots=True)
class NodeHardware:
    """What the engine runs on, and the share of the host that is left."""

    detected: DetectedHardware | None
    """None for an upstream on another machine."""
    engine_cores: tuple[int, ...]
    """Empty where the engine runs on an accelerator or elsewhere."""
    host_watts_per_core: float | None


def simulated_device(settings: EngineSettings) -> Device:
    """The declared one; under the model's name where it has one, so that two are told apart."""
    source = "declared (simulated)"
    simulated = settings.simulated
    return Device(
        name=f"simulated device {settings.served_model_name}" if settings.served_model_name else "simulated device",
        kind="simulated",
        peak_flops={"bf16": Figure(simulated.peak_flops, source)},
        bandwidth_bytes_per_second=Figure(simulated.bandwidth_bytes_per_second, source),
        idle_watts=Figure(simulated.idle_watts, source),
        max_watts=Figure(simulated.max_watts, source),
    )


def node_hardware(config: GatewayConfig) -> NodeHardware:
    """Detect, then let the configuration override.

    Raises:
        BadInput: an unknown device name or a figure that makes no sense.
    """
    metering, engine = config.metering, config.engine
    overrides = _overrides(metering)
    host = detect_cpu(threads=1).device
    host_watts = host.max_watts.value if host.max_watts else None
    if engine.kind == "simulated":
        device = simulated_device(engine).overridden(overrides)
        return NodeHardware(DetectedHardware(device, 1), (), host_watts)
    if engine.kind == "upstream":
        detected = detect(device=metering.device, overrides=overrides) if metering.device else None
        return NodeHardware(detected, (), host_watts)
    if has_gpu():
        return NodeHardware(detect(device=metering.device, overrides=overrides), (), host_watts)
    cores = engine_cores(engine.vllm, sorted(os.sched_getaffinity(0)))
    detected = detect(device=metering.device or "cpu", threads=len(cores), overrides=overrides)
    if metering.device in (None, "cpu") and metering.peak_flops is None:
        detected = with_calibration(detected, cores)
    return NodeHardware(detected, cores, host_watts)


def _overrides(metering: MeteringSettings) -> Mapping[str, Any]:
    figures: dict[str, Any] = {
        "bandwidth_bytes_per_second": metering.bandwidth_bytes_per_second,
        "idle_watts": metering.idle_watts,
        "max_watts": metering.max_watts,
        "embodied_kilograms": metering.embodied_kilograms,
    }
    if metering.peak_flops is not None:
        figures["peak_flops"] = dict.fromkeys(("fp32", "bf16", "fp16"), metering.peak_flops)
    return {name: figure for name, figure in figures.items() if figure is not None}


def model_profile(model: EngineModel, hardware: NodeHardware) -> ModelProfile:
    """The served model on its device; whatever is unknown stays None."""
    architecture = None
    if model.config is not None:
        try:
            architecture = architecture_from_config(model.config)
        except BadInput:
            architecture = None
    peak = bandwidth = None
    method = Method.MODELLED
    if hardware.detected is not None:
        device = hardware.detected.device
        count = hardware.detected.count
        figure = device.peak_for(model.dtype or "float32")
        peak = figure.value * count if figure else None
        bandwidth = device.bandwidth_bytes_per_second.value * count if device.bandwidth_bytes_per_second else None
        if device.kind == "simulated":
            method = Method.SIMULATED
    return ModelProfile(
        name=model.name,
        architecture=architecture,
        weight_bytes_each=model.weight_bytes_each,
        kv_bytes_each=None if architecture is None else architecture.dtype_bytes,
        peak_flops=peak,
        bandwidth_bytes_per_second=bandwidth,
        method=method,
    )


def power_plan(config: GatewayConfig, hardware: NodeHardware) -> PowerPlan:
    """Meters and power models of what an engine runs on, and why not better ones."""
    detected, kind = hardware.detected, config.engine.kind
    if detected is None:

        def unknown() -> LoadPower:
            raise PowerUnavailable("the upstream's device is unknown (metering.device): no energy")

        return choose_meter({"upstream": [Candidate("idle_aware", unknown)]})
    if hardware.engine_cores or kind == "vllm":
        return engine_power(detected, hardware.engine_cores)
    method = Method.SIMULATED if detected.device.kind == "simulated" else Method.MODELLED
    part = "simulated device" if method is Method.SIMULATED else "device"
    return choose_meter({part: [Candidate("idle_aware", lambda: _device_model(detected, method))]})


def engine_power(detected: DetectedHardware, engine_cores: Sequence[int], *, powercap: Path = POWERCAP) -> PowerPlan:
    """Of an engine on this machine: measured where the machine shows its energy, else modelled from sourced watts.

    Args:
        detected: the accelerator; on a CPU its figures are those of the engine's cores together.
        engine_cores: empty where the engine runs on GPUs.
        powercap: the tree that RAPL is read from.
    """
    if engine_cores:
        return _cpu_power(detected.device, engine_cores, powercap)
    return _gpu_power(detected)


def _cpu_power(device: Device, engine_cores: Sequence[int], powercap: Path) -> PowerPlan:
    """RAPL where it can be read, of this machine's CPU only: a device that was named is not what RAPL measures."""
    cores = len(engine_cores)
    idle = device.idle_watts.value / cores if device.idle_watts else None
    most = device.max_watts.value / cores if device.max_watts else None
    memory_gb = psutil.virtual_memory().total / 1e9

    def rapl() -> PowerMeter:
        if device.kind != "cpu":
            raise PowerUnavailable(f"metering.device names {device.name}, which RAPL does not measure")
        all_cores = psutil.cpu_count() or cores
        idle_watts = {}
        if idle is not None:
            dram = DRAM_WATTS_PER_GB * memory_gb if any(zone.dram for zone in find_zones(powercap)) else 0.0
            idle_watts = {"cpu": idle * cores, "host": idle * (all_cores - cores) + dram}
        return RaplMeter(cores, all_cores, idle_watts=idle_watts, root=powercap)

    def model() -> PowerMeter:
        return CpuPowerModel(engine_cores, idle_watts_per_core=idle, max_watts_per_core=most, memory_gb=memory_gb)

    return choose_meter({"cpu": [Candidate("rapl", rapl), Candidate("idle_aware", model)]})


def _gpu_power(detected: DetectedHardware) -> PowerPlan:
    """NVML's energy counters where the driver has them, else the idle-aware model."""
    from metering.power.nvml import NvmlMeter

    idle = detected.device.idle_watts.value if detected.device.idle_watts else None

    def nvml() -> PowerMeter:
        import pynvml

        return NvmlMeter(pynvml, idle_watts=lambda _: idle)

    def model() -> LoadPower:
        return _device_model(detected, Method.MODELLED)

    return choose_meter({"gpu": [Candidate("nvml", nvml), Candidate("idle_aware", model)]})


def _device_model(detected: DetectedHardware, method: Method) -> LoadPower:
    device, count = detected.device, detected.count
    if device.max_watts is None:
        raise PowerUnavailable(f"maximal watts of {device.name} are unknown (metering.max_watts)")
    idle = None if device.idle_watts is None else device.idle_watts.value * count
    component = Component(device.name.replace(" ", "_"), Boundary.ACCELERATOR)
    return IdleAwarePower(component, idle, device.max_watts.value * count, method=method)


@dataclass(frozen=True, slots=True)
class NodePower:
    """What is metered on a node with several engines, and which of it each engine runs on."""

    meters: tuple[PowerMeter, ...]
    load_models: tuple[LoadPower, ...]
    refusals: tuple[str, ...]
    devices: Mapping[str, frozenset[str]]
    """Served model to its accelerators' components; a model that is not here runs on all of them."""
    embodied: Mapping[str, Embodied]
    prices_per_hour: Mapping[str, float]


def node_power(config: GatewayConfig) -> NodePower:
    """Of the engine in the gateway's replicas, or of all models that are placed apart.

    CPU engines share one model of the whole CPU, over the cores of all of them; GPU engines the node's meters.
    """
    meters: list[PowerMeter] = []
    models: list[LoadPower] = []
    refusals: list[str] = []
    devices: dict[str, frozenset[str]] = {}
    embodied: dict[str, Embodied] = {}
    prices: dict[str, float] = {}
    groups: dict[str, tuple[GatewayConfig, list[str]]] = {}
    placed = placed_models(config)
    for one in placed:
        own = engine_config(config, one)
        key = own.engine.kind if own.engine.kind == "vllm" else one.name
        groups.setdefault(key, (_on_all_cores(own, config), []))[1].append(one.name)
    for group, names in groups.values() if placed else [(config, [])]:
        hardware = node_hardware(group)
        plan = power_plan(group, hardware)
        if plan.uncovered and (not placed or group.engine.kind != "upstream"):
            refusals += [entry.reason for entry in plan.rejected]
        found = [component for meter in plan.meters for component in meter.components]
        found += [model.component for model in plan.load_models]
        accelerators = frozenset(c.name for c in found if c.boundary is Boundary.ACCELERATOR)
        devices |= dict.fromkeys(names, accelerators)
        meters += plan.meters
        models += plan.load_models
        device = hardware.detected.device if hardware.detected else None
        if device is not None and device.embodied_kilograms is not None and hardware.detected is not None and found:
            grams = device.embodied_kilograms.value * 1000 * hardware.detected.count
            embodied[found[0].name] = Embodied(grams, config.metering.lifetime_years * SECONDS_PER_YEAR)
        if (
            config.metering.price_per_device_hour is not None
            and hardware.detected is not None
            and (found or not placed)
        ):
            first = found[0].name if found else UNMETERED.name
            prices[first] = config.metering.price_per_device_hour * hardware.detected.count
    return NodePower(tuple(meters), tuple(models), tuple(refusals), devices, embodied, prices)


def _on_all_cores(own: GatewayConfig, config: GatewayConfig) -> GatewayConfig:
    """A CPU engine's configuration with the cores of all CPU engines beside it."""
    if own.engine.kind != "vllm" or has_gpu():
        return own
    available = sorted(os.sched_getaffinity(0))
    engines = [one.settings.engine for one in placed_models(config)]
    cores = {core for engine in engines if engine.kind == "vllm" for core in engine_cores(engine.vllm, available)}
    vllm = own.engine.vllm.model_copy(update={"cpu_cores": tuple(sorted(cores))})
    return own.model_copy(update={"engine": own.engine.model_copy(update={"vllm": vllm})})


def build_node_meter(
    config: GatewayConfig, power: NodePower | None = None, tell: Callable[[str], None] = lambda _: None
) -> NodeMeter:
    """The node's meter with its power source, embodied carbon and static intensity."""
    metering = config.metering
    power = power or node_power(config)
    for refusal in power.refusals:
        tell(f"not metered: {refusal}")
    settings = NodeSettings(
        window_seconds=metering.window_seconds,
        weight=WeightKind(metering.weight),
        idle_policy=IdlePolicy(metering.idle_policy),
        pue=metering.pue,
        embodied=dict(power.embodied),
        prices_per_hour=dict(power.prices_per_hour),
        price_per_kwh=metering.price_per_kwh,
    )
    node = NodeMeter(power.meters, settings, load_models=power.load_models)
    node.set_intensity(first_stamp(metering))
    return node
