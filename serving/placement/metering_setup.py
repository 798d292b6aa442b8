"""From the configuration and what the machine has to the node's meter and the model's profile."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from metering.architecture import architecture_from_config
from metering.errors import BadInput
from metering.hardware.detect import detect, detect_cpu
from metering.hardware.device import DetectedHardware, Device, Figure
from metering.idle import IdlePolicy
from metering.lora import with_adapter
from metering.model_profile import ModelProfile
from metering.node import UNMETERED, NodeMeter
from metering.node_settings import Embodied, NodeSettings
from metering.power.base import Boundary, Component, LoadPower, PowerMeter, PowerUnavailable
from metering.power.choose import Candidate, PowerPlan, choose_meter
from metering.power.model import DRAM_WATTS_PER_GB, BusyPower, CpuPowerModel, IdleAwarePower
from metering.power.nvml import NvmlMeter
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
from serving.tuning.engine_library import find_engine_model
from serving.tuning.engine_model import EngineModel as FittedModel

SECONDS_PER_YEAR = 365 * 24 * 3600.0
"""SCI's worked example (ISO/IEC 21031) counts years of 365 days."""


@dataclass(frozen=True, slots=True)
class NodeHardware:
    """What the engine runs on, and the share of the host that is left."""

    detected: DetectedHardware | None
    """None for an upstream on another machine."""
    engine_cores: tuple[int, ...]
    """Empty where the engine runs on an accelerator or elsewhere."""
    host: DetectedHardware
    """All the CPUs of this machine together."""

    @property
    def host_watts_per_core(self) -> float | None:
        watts, threads = self.host.device.max_watts, self.host.threads
        return watts.value / threads if watts and threads else None

    @property
    def gpus(self) -> tuple[str, ...]:
        """UUIDs of the GPUs, or of the MIG slice, that the engine runs on."""
        return self.detected.uuids if self.detected is not None and not self.engine_cores else ()


def simulated_device(settings: EngineSettings) -> DetectedHardware:
    """The declared one, or what a fitted engine model knows of its own; under the model's name where it has one, so
    that two are told apart.
    """
    source = "declared (simulated)"
    simulated = settings.simulated
    device = Device(
        name=f"simulated device {settings.served_model_name}" if settings.served_model_name else "simulated device",
        kind="simulated",
        peak_flops={"bf16": Figure(simulated.peak_flops, source)},
        bandwidth_bytes_per_second=Figure(simulated.bandwidth_bytes_per_second, source),
        idle_watts=Figure(simulated.idle_watts, source),
        max_watts=Figure(simulated.max_watts, source),
    )
    fitted = fitted_engine(settings)
    if fitted is None:
        return DetectedHardware(device, 1)
    source = f"fitted to {fitted.device} (simulated)"

    def each(figure: float) -> Figure:
        return Figure(figure / fitted.devices, source)

    if fitted.peak_flops is not None:
        device = replace(device, peak_flops={"bf16": each(fitted.peak_flops)})
    if fitted.power is not None:
        # a power by busy time asks for no bandwidth, and that of another device would make an MBU of nothing
        idle, most = each(fitted.power.idle_watts), each(fitted.power.max_watts)
        device = replace(device, idle_watts=idle, max_watts=most, bandwidth_bytes_per_second=None)
    if fitted.embodied_kilograms is not None:
        device = replace(device, embodied_kilograms=each(fitted.embodied_kilograms))
    return DetectedHardware(device, fitted.devices)


def fitted_engine(settings: EngineSettings) -> FittedModel | None:
    """What drives a simulated engine; None where its settings do."""
    name = settings.simulated.engine_model if settings.kind == "simulated" else None
    return None if name is None else find_engine_model(name)


def node_hardware(config: GatewayConfig) -> NodeHardware:
    """Detect, then let the configuration override. Of the GPUs that this process may work on, an engine takes the
    first that it needs, as CUDA numbers them.

    Raises:
        BadInput: an unknown device name or a figure that makes no sense.
    """
    hardware = _machine_hardware(config)
    found = hardware.detected
    if found is None or not hardware.gpus or config.engine.kind != "vllm":
        return hardware
    mine = hardware.gpus[: config.engine.vllm.gpus]
    return replace(hardware, detected=replace(found, count=len(mine), uuids=mine))


def _machine_hardware(config: GatewayConfig) -> NodeHardware:
    """What replicas of the engine may run on: on GPUs, any that this process may work on."""
    metering, engine = config.metering, config.engine
    overrides = _overrides(metering)
    host = detect_cpu()
    host_watts = {"idle_watts": metering.host_idle_watts, "max_watts": metering.host_max_watts}
    host = replace(host, device=host.device.overridden(host_watts))
    if engine.kind == "simulated":
        simulated = simulated_device(engine)
        return NodeHardware(replace(simulated, device=simulated.device.overridden(overrides)), (), host)
    if engine.kind == "upstream":
        detected = detect(device=metering.device, overrides=overrides) if metering.device else None
        return NodeHardware(detected, (), host)
    if has_gpu():
        return NodeHardware(detect(device=metering.device, overrides=overrides), (), host)
    cores = engine_cores(engine.vllm, sorted(os.sched_getaffinity(0)))
    detected = detect(device=metering.device or "cpu", threads=len(cores), overrides=overrides)
    if metering.device in (None, "cpu") and metering.peak_flops is None:
        detected = with_calibration(detected, cores)
    return NodeHardware(detected, cores, host)


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
    if architecture is not None and model.adapter is not None:
        # one that cannot be counted adds little, about its rank over the model's width: the model's own count stands
        with suppress(BadInput):
            architecture = with_adapter(architecture, model.adapter)
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


def _pynvml() -> Any:
    import pynvml

    return pynvml


def power_plan(config: GatewayConfig, hardware: NodeHardware) -> PowerPlan:
    """Meters and power models of what an engine runs on, and why not better ones."""
    detected, kind = hardware.detected, config.engine.kind
    if detected is None:

        def unknown() -> LoadPower:
            raise PowerUnavailable("the upstream's device is unknown (metering.device): no energy")

        return choose_meter({"upstream": [Candidate("idle_aware", unknown)]})
    if hardware.engine_cores or kind == "vllm":
        return engine_power(detected, hardware.engine_cores, hardware.host)
    method = Method.SIMULATED if detected.device.kind == "simulated" else Method.MODELLED
    part = "simulated device" if method is Method.SIMULATED else "device"
    fitted = fitted_engine(config.engine)
    if fitted is not None and fitted.power is not None:
        busy = fitted.power.busy_utilisation
        return choose_meter({part: [Candidate("busy", lambda: _busy_model(detected, busy, method))]})
    return choose_meter({part: [Candidate("idle_aware", lambda: _device_model(detected, method))]})


def engine_power(
    detected: DetectedHardware,
    engine_cores: Sequence[int],
    host: DetectedHardware,
    *,
    powercap: Path = POWERCAP,
    nvml: Callable[[], Any] = _pynvml,
) -> PowerPlan:
    """Of an engine on this machine: measured where the machine shows its energy, else modelled from sourced watts.

    Args:
        detected: the accelerator; on a CPU its figures are those of the engine's cores together.
        engine_cores: empty where the engine runs on GPUs: the whole CPU and its memory are then the host.
        host: the machine's CPUs.
        powercap: the tree that RAPL is read from.
        nvml: gives the driver's library; a test's own.
    """
    if engine_cores:
        return choose_meter({"cpu": _cpu_power(detected.device, len(engine_cores), engine_cores, powercap)})
    threads = host.threads or psutil.cpu_count() or 1
    return choose_meter(
        {"gpu": _gpu_power(detected, nvml), "host": _cpu_power(host.device, threads, engine_cores, powercap)}
    )


def _cpu_power(device: Device, threads: int, engine_cores: Sequence[int], powercap: Path) -> list[Candidate]:
    """RAPL where it can be read, of this machine's CPU only: a device that was named is not what RAPL measures.

    ``device``'s figures cover ``threads``.
    """
    cores = len(engine_cores)
    idle = device.idle_watts.value / threads if device.idle_watts else None
    most = device.max_watts.value / threads if device.max_watts else None
    memory_gb = psutil.virtual_memory().total / 1e9

    def rapl() -> PowerMeter:
        if device.kind != "cpu":
            raise PowerUnavailable(f"metering.device names {device.name}, which RAPL does not measure")
        all_cores = psutil.cpu_count() or threads
        idle_watts = {}
        if idle is not None:
            dram = DRAM_WATTS_PER_GB * memory_gb if any(zone.dram for zone in find_zones(powercap)) else 0.0
            idle_watts = {"cpu": idle * cores, "host": idle * (all_cores - cores) + dram}
        return RaplMeter(cores, all_cores, idle_watts=idle_watts, root=powercap)

    def model() -> PowerMeter:
        return CpuPowerModel(engine_cores, idle_watts_per_core=idle, max_watts_per_core=most, memory_gb=memory_gb)

    return [Candidate("rapl", rapl), Candidate("idle_aware", model)]


def _gpu_power(detected: DetectedHardware, nvml: Callable[[], Any]) -> list[Candidate]:
    """NVML's energy counters where the driver has them, else the idle-aware model."""
    idle = detected.device.idle_watts.value if detected.device.idle_watts else None

    def counters() -> PowerMeter:
        return NvmlMeter(nvml(), detected.uuids or None, idle_watts=lambda _: idle)

    def model() -> LoadPower:
        return _device_model(detected, Method.MODELLED)

    return [Candidate("nvml", counters), Candidate("idle_aware", model)]


def _device_model(detected: DetectedHardware, method: Method) -> IdleAwarePower:
    device, count = detected.device, detected.count
    if detected.slices:
        slices = ", ".join(detected.slices)
        raise PowerUnavailable(f"a MIG slice without an energy counter ({slices}): its share of the GPU is unknown")
    if device.max_watts is None:
        raise PowerUnavailable(f"maximal watts of {device.name} are unknown (metering.max_watts)")
    idle = None if device.idle_watts is None else device.idle_watts.value * count
    component = Component(device.name.replace(" ", "_"), Boundary.ACCELERATOR, count)
    return IdleAwarePower(component, idle, device.max_watts.value * count, method=method)


def _busy_model(detected: DetectedHardware, busy_utilisation: float, method: Method) -> LoadPower:
    known = _device_model(detected, method)
    return BusyPower(known.component, known.idle_watts, known.max_watts, busy_utilisation, method)


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
    on_demand: frozenset[str] = frozenset()
    """GPUs that are booked from when a replica runs on them; until then they are others'."""
    elsewhere: bool = False
    """Whether an engine's devices are metered by nothing here."""


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
    on_demand: set[str] = set()
    elsewhere = False
    lifetime_seconds = config.metering.lifetime_years * SECONDS_PER_YEAR
    groups: dict[str, tuple[GatewayConfig, list[str]]] = {}
    placed = placed_models(config)
    for one in placed:
        own = engine_config(config, one)
        key = own.engine.kind if own.engine.kind == "vllm" else one.name
        groups.setdefault(key, (_on_all_cores(own, config), []))[1].append(one.name)
    for group, names in groups.values() if placed else [(config, [])]:
        hardware = _machine_hardware(group)
        plan = power_plan(group, hardware)
        if plan.uncovered and (not placed or group.engine.kind != "upstream"):
            refusals += [entry.reason for entry in plan.rejected]
        found = [component for meter in plan.meters for component in meter.components]
        found += [model.component for model in plan.load_models]
        accelerators = [component for component in found if component.boundary is Boundary.ACCELERATOR]
        elsewhere = elsewhere or not accelerators
        devices |= dict.fromkeys(names, frozenset(component.name for component in accelerators or [UNMETERED]))
        on_demand |= {component.name for component in accelerators} & set(hardware.gpus)
        meters += plan.meters
        models += plan.load_models
        if hardware.detected is None:
            continue
        kilograms = hardware.detected.device.embodied_kilograms
        if kilograms is not None and accelerators:
            for component in accelerators:
                embodied[component.name] = Embodied(kilograms.value * 1000 * component.devices, lifetime_seconds)
            # beside a device of unknown mass, or one that nothing meters, the host's alone would pass for the whole
            host_kilograms = _host_embodied_kilograms(config.metering, hardware)
            for component in found:
                if component.boundary is Boundary.HOST and host_kilograms is not None:
                    embodied[component.name] = Embodied(host_kilograms * 1000, lifetime_seconds)
        if config.metering.price_per_device_hour is not None:
            unmetered = (
                [] if placed or hardware.detected.slices else [replace(UNMETERED, devices=hardware.detected.count)]
            )
            for component in accelerators or unmetered:
                prices[component.name] = config.metering.price_per_device_hour * component.devices
    return NodePower(
        tuple(meters), tuple(models), tuple(refusals), devices, embodied, prices, frozenset(on_demand), elsewhere
    )


def _host_embodied_kilograms(metering: MeteringSettings, hardware: NodeHardware) -> float | None:
    """Of the server around the engine's device: given, or the catalogue's share of the vCPUs left to it."""
    if metering.host_embodied_kilograms is not None:
        return metering.host_embodied_kilograms
    whole, threads = hardware.host.device.embodied_kilograms, hardware.host.threads
    if whole is None or not threads or (hardware.engine_cores and metering.embodied_kilograms is not None):
        return None
    return whole.value * max(0, threads - len(hardware.engine_cores)) / threads


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
    node = NodeMeter(
        power.meters,
        settings,
        load_models=power.load_models,
        on_demand=power.on_demand,
        elsewhere=power.elsewhere,
    )
    node.set_intensity(first_stamp(metering))
    return node
