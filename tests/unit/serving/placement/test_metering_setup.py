from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from metering.architecture import architecture_from_config
from metering.hardware.detect import detect
from metering.hardware.device import DetectedHardware, Device, Figure
from metering.hardware.nvml import NvmlDevice
from metering.power.base import Load, PowerUnavailable
from metering.power.model import DRAM_WATTS_PER_GB, CpuPowerModel, IdleAwarePower
from metering.work import Method, WorkRecord
from serving.config import GatewayConfig
from serving.engines.base import EngineModel
from serving.engines.simulated import SIMULATED_CONFIG, SimulatedEngine
from serving.placement.metering_setup import (
    NodeHardware,
    build_node_meter,
    engine_power,
    model_profile,
    node_hardware,
    node_power,
    power_plan,
)
from serving.tuning.engine_model import EngineModel as FittedModel
from serving.tuning.engine_model import FlopCount, Plane, Power
from tests.unit.metering.power.test_nvml import FakeGpu, FakeNvml
from tests.unit.metering.power.test_rapl import Tree


def config(**sections: object) -> GatewayConfig:
    return GatewayConfig.model_validate(sections)


def test_a_simulated_engine_runs_on_its_declared_device_only() -> None:
    chosen = config(engine={"kind": "simulated"})
    plan = power_plan(chosen, node_hardware(chosen))
    assert plan.meters == ()
    assert plan.rejected == ()
    assert [(type(model), model.method) for model in plan.load_models] == [(IdleAwarePower, Method.SIMULATED)]


def test_a_simulated_engine_by_a_fitted_model_has_its_power_peak_and_flops(tmp_path: Path) -> None:
    flops = FlopCount.of(architecture_from_config(SIMULATED_CONFIG))
    fitted = FittedModel(
        "m", "H100", (Plane(0.01),), devices=2, power=Power(100.0, 800.0, 0.5), peak_flops=2e15, flops=flops
    )
    fitted.save(tmp_path / "model.json")
    simulated = {"engine_model": str(tmp_path / "model.json")}
    chosen = config(engine={"kind": "simulated", "simulated": simulated})
    hardware = node_hardware(chosen)
    (power,) = power_plan(chosen, hardware).load_models
    busy, idle = fitted.power.joules(10.0, 4.0) if fitted.power else (0.0, 0.0)
    assert power.energy_nanojoules(Load(10.0, 4.0, None, None)) == pytest.approx((busy + idle) * 1e9)
    assert power.component.devices == 2
    engine = SimulatedEngine(chosen.engine, lambda steps: None)
    asyncio.run(engine.start())
    profile = model_profile(engine.models()[0], hardware)
    assert profile.peak_flops == 2e15
    assert profile.bandwidth_bytes_per_second is None
    work = profile.work(WorkRecord("r", "m", "t", 0.0, 1.0, prefill_tokens=100))
    assert work is not None
    assert work.flops == pytest.approx(100 * flops.per_token + 5050 * flops.per_pair + flops.per_row, rel=1e-6)


def test_the_declared_watts_stay_where_the_fitted_model_knows_none(tmp_path: Path) -> None:
    FittedModel("m", "d", (Plane(0.01),)).save(tmp_path / "model.json")
    chosen = config(engine={"kind": "simulated", "simulated": {"engine_model": str(tmp_path / "model.json")}})
    hardware = node_hardware(chosen)
    (power,) = power_plan(chosen, hardware).load_models
    assert isinstance(power, IdleAwarePower)
    assert (power.idle_watts, power.max_watts) == (50.0, 300.0)


def test_an_upstream_elsewhere_has_no_energy_and_says_why() -> None:
    chosen = config(engine={"kind": "upstream"})
    told: list[str] = []
    node = build_node_meter(chosen, tell=told.append)
    assert node.power == "unknown"
    assert "metering.device" in told[0]


def test_a_cpu_engine_is_metered_on_its_own_cores() -> None:
    chosen = config(engine={"kind": "vllm", "vllm": {"cpu_cores": [0]}}, metering={"idle_watts": 1, "max_watts": 3})
    hardware = node_hardware(chosen)
    if hardware.engine_cores == ():
        pytest.skip("this machine has a GPU")
    plan = power_plan(chosen, hardware)
    assert plan.load_models == ()
    assert [component.name for component in plan.meters[0].components] == ["cpu", "host"]


CPU = Device(
    name="a CPU",
    kind="cpu",
    peak_flops={},
    bandwidth_bytes_per_second=None,
    idle_watts=Figure(1.0, "test"),
    max_watts=Figure(3.0, "test"),
)


HOST = DetectedHardware(replace(CPU, idle_watts=Figure(4.0, "test"), max_watts=Figure(12.0, "test")), threads=4)


def test_without_rapl_a_cpu_is_modelled_and_the_plan_says_why(tmp_path: Path) -> None:
    plan = engine_power(DetectedHardware(CPU), (0,), HOST, powercap=tmp_path)
    assert [type(meter) for meter in plan.meters] == [CpuPowerModel]
    assert plan.chosen == {"cpu": "idle_aware"}
    assert [entry.name for entry in plan.rejected] == ["rapl"]
    assert "no RAPL package" in plan.rejected[0].reason


def test_a_cpu_whose_rapl_can_be_read_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    Tree(tmp_path)
    plan = engine_power(DetectedHardware(CPU), (0, 1), HOST, powercap=tmp_path)
    (meter,) = plan.meters
    assert (meter.name, meter.method) == ("rapl_by_cores", Method.MEASURED)
    assert plan.rejected == ()
    idle = {name: reading.idle_watts for name, reading in meter.read(0.0).components.items()}
    memory_watts = DRAM_WATTS_PER_GB * psutil.virtual_memory().total / 1e9
    assert idle == {"cpu": pytest.approx(1.0), "host": pytest.approx(1.0 + memory_watts)}


def test_rapl_does_not_measure_a_device_that_was_only_named(tmp_path: Path) -> None:
    Tree(tmp_path)
    plan = engine_power(DetectedHardware(replace(CPU, kind="gpu", name="H100")), (0,), HOST, powercap=tmp_path)
    assert plan.chosen == {"cpu": "idle_aware"}
    assert "H100" in plan.rejected[0].reason


def test_a_config_that_is_not_understood_gives_no_flops() -> None:
    chosen = config(engine={"kind": "simulated"})
    hardware = node_hardware(chosen)
    known = model_profile(EngineModel("m", config=SIMULATED_CONFIG, dtype="bfloat16"), hardware)
    assert known.architecture is not None
    assert known.peak_flops == chosen.engine.simulated.peak_flops
    assert model_profile(EngineModel("m", config={"model_type": "new"}), hardware).architecture is None
    assert model_profile(EngineModel("m"), hardware).architecture is None


GPU = Device(
    name="H100",
    kind="gpu",
    peak_flops={"bf16": Figure(1e12, "test")},
    idle_watts=Figure(70.0, "test"),
    max_watts=Figure(700.0, "test"),
    embodied_kilograms=Figure(273.0, "test"),
)


def test_beside_a_gpu_the_cpu_and_memory_are_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    Tree(tmp_path)
    gpus = DetectedHardware(GPU, 1, uuids=("GPU-1",))
    nvml = FakeNvml(FakeGpu("GPU-1"), FakeGpu("GPU-2"))
    plan = engine_power(gpus, (), HOST, powercap=tmp_path, nvml=lambda: nvml)
    assert plan.chosen == {"gpu": "nvml", "host": "rapl"}
    # the other GPU is somebody else's
    assert [component.name for meter in plan.meters for component in meter.components] == ["GPU-1", "host"]
    memory_watts = DRAM_WATTS_PER_GB * psutil.virtual_memory().total / 1e9
    assert plan.meters[1].read(0.0).components["host"].idle_watts == pytest.approx(4.0 + memory_watts)


def test_a_host_whose_rapl_is_not_there_is_modelled_beside_a_measured_gpu(tmp_path: Path) -> None:
    gpus = DetectedHardware(GPU, 1, uuids=("GPU-1",))
    plan = engine_power(gpus, (), HOST, powercap=tmp_path, nvml=lambda: FakeNvml(FakeGpu("GPU-1")))
    assert plan.chosen == {"gpu": "nvml", "host": "idle_aware"}
    assert [meter.method for meter in plan.meters] == [Method.MEASURED, Method.MODELLED]


def test_a_host_of_unknown_watts_is_uncovered_and_named(tmp_path: Path) -> None:
    unknown = replace(HOST, device=replace(CPU, idle_watts=None))
    gpus = DetectedHardware(GPU, 1, uuids=("GPU-1",))
    plan = engine_power(gpus, (), unknown, powercap=tmp_path, nvml=lambda: FakeNvml(FakeGpu("GPU-1")))
    assert plan.uncovered == ("host",)


def test_an_engine_runs_on_the_first_gpus_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    four = DetectedHardware(GPU, 4, uuids=("GPU-1", "GPU-2", "GPU-3", "GPU-4"))
    monkeypatch.setattr("serving.placement.metering_setup.has_gpu", lambda: True)
    monkeypatch.setattr("serving.placement.metering_setup.detect", lambda **_: four)
    hardware = node_hardware(config(engine={"kind": "vllm", "vllm": {"tensor_parallel_size": 2}}))
    assert hardware.gpus == ("GPU-1", "GPU-2")
    profile = model_profile(EngineModel("m", config=SIMULATED_CONFIG, dtype="bfloat16"), hardware)
    assert profile.peak_flops == 2e12
    piped = {"tensor_parallel_size": 2, "extra": {"pipeline-parallel-size": 2}}
    assert len(node_hardware(config(engine={"kind": "vllm", "vllm": piped})).gpus) == 4


@pytest.mark.parametrize(("shown", "size", "gpus"), [("1", 1, ("GPU-1",)), ("2,3", 2, ("GPU-2", "GPU-3"))])
def test_an_engine_s_gpus_are_those_that_ray_gave_its_replica(
    monkeypatch: pytest.MonkeyPatch, shown: str, size: int, gpus: tuple[str, ...]
) -> None:
    four = tuple(NvmlDevice(index, "NVIDIA L4", f"GPU-{index}") for index in range(4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    monkeypatch.setattr("serving.placement.metering_setup.has_gpu", lambda: True)
    monkeypatch.setattr("serving.placement.metering_setup.detect", partial(detect, gpus=lambda: four))
    chosen = config(engine={"kind": "vllm", "vllm": {"tensor_parallel_size": size}})
    assert node_hardware(chosen).gpus == gpus


def test_each_gpu_carries_its_own_mass_and_price_and_the_host_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "serving.placement.metering_setup."
    two = DetectedHardware(GPU, 2, uuids=("GPU-1", "MIG-b"))
    nvml = FakeNvml(FakeGpu("GPU-1"), FakeGpu("GPU-2", migs=[("MIG-a", 3), ("MIG-b", 2)]))
    monkeypatch.setattr(module + "has_gpu", lambda: True)
    monkeypatch.setattr(module + "detect", lambda **_: two)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    metering = {"host_embodied_kilograms": 1000, "host_idle_watts": 100, "host_max_watts": 400}
    power = node_power(config(engine={"kind": "vllm"}, metering={**metering, "price_per_device_hour": 7}))
    assert {name: one.grams for name, one in power.embodied.items()} == {
        "GPU-1": 273_000,
        "MIG-b": pytest.approx(273_000 * 2 / 7),
        "host": 1_000_000,
    }
    assert power.prices_per_hour == {"GPU-1": 7, "MIG-b": pytest.approx(2)}
    assert power.on_demand == {"GPU-1", "MIG-b"}


def test_beside_a_gpu_of_unknown_mass_the_host_s_is_not_booked(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "serving.placement.metering_setup."
    unknown = replace(GPU, embodied_kilograms=None)
    monkeypatch.setattr(module + "has_gpu", lambda: True)
    monkeypatch.setattr(module + "detect", lambda **_: DetectedHardware(unknown, 1, uuids=("GPU-1",)))
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(FakeGpu("GPU-1")))
    metering = {"host_embodied_kilograms": 1000, "host_idle_watts": 100, "host_max_watts": 400}
    assert node_power(config(engine={"kind": "vllm"}, metering=metering)).embodied == {}


@pytest.mark.parametrize("uuid", ["GPU-1", "MIG-b"])
def test_a_slice_without_a_counter_is_not_booked_as_the_whole_gpu(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    module = "serving.placement.metering_setup."

    def nothing() -> FakeNvml:
        raise PowerUnavailable("no energy counter")

    monkeypatch.setattr(module + "has_gpu", lambda: True)
    monkeypatch.setattr(module + "detect", lambda **_: DetectedHardware(GPU, 1, uuids=(uuid,)))
    monkeypatch.setattr(module + "NvmlMeter", lambda *_, **__: nothing())
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    metering = {"host_embodied_kilograms": 1000, "host_idle_watts": 100, "host_max_watts": 400}
    power = node_power(config(engine={"kind": "vllm"}, metering={**metering, "price_per_device_hour": 7}))
    if uuid.startswith("GPU-"):
        (model,) = power.load_models
        assert set(power.embodied) == {model.component.name, "host"}
        assert power.prices_per_hour == {model.component.name: 7}
        return
    assert power.load_models == ()
    assert (power.embodied, power.prices_per_hour) == ({}, {})
    assert any("MIG slice without an energy counter (MIG-b)" in refusal for refusal in power.refusals)
    assert power.elsewhere


def test_the_cores_left_to_the_host_carry_their_share_of_the_server() -> None:
    server = replace(HOST, device=replace(CPU, embodied_kilograms=Figure(80.0, "test")))
    chosen = config(engine={"kind": "vllm"})
    from serving.placement.metering_setup import _host_embodied_kilograms as host_kilograms

    assert host_kilograms(chosen.metering, NodeHardware(None, (0,), server)) == 60.0
    assert host_kilograms(chosen.metering, NodeHardware(None, (), server)) == 80.0
    given = config(metering={"embodied_kilograms": 5}).metering
    # the mass that was given for the CPU may be the server's
    assert host_kilograms(given, NodeHardware(None, (0,), server)) is None
    assert host_kilograms(given, NodeHardware(None, (), server)) == 80.0


def test_what_an_upstream_elsewhere_does_costs_no_device_of_this_node() -> None:
    metering = {"device": None}
    models = {
        "here": {"engine": {"kind": "simulated"}},
        "there": {"engine": {"kind": "upstream", "upstream": {"url": "http://127.0.0.1:9"}}},
    }
    chosen = config(models=models, metering=metering)
    power = node_power(chosen)
    assert power.devices["there"] == {"unmetered"}
    assert "unmetered" in {component.name for component in build_node_meter(chosen, power).components}


def test_an_adapter_s_own_flops_are_in_its_profile() -> None:
    chosen = config(engine={"kind": "simulated"})
    hardware = node_hardware(chosen)
    plain = EngineModel("m", config=SIMULATED_CONFIG, dtype="bfloat16")
    tuned = replace(plain, name="tuned", parent="m", adapter={"r": 8, "target_modules": ["q_proj", "v_proj"]})
    record = WorkRecord("r", "m", "t", 0.0, 1.0, decode_tokens=1, first_context_tokens=9)
    base = model_profile(plain, hardware).work(record)
    more = model_profile(tuned, hardware).work(record)
    assert base is not None
    assert more is not None
    assert more.flops_decode > base.flops_decode
    uncounted = replace(tuned, adapter={"r": 8, "target_modules": "all-linear"})
    assert model_profile(uncounted, hardware).work(record) == base
