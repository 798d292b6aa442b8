from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from metering.hardware.device import DetectedHardware, Device, Figure
from metering.power.model import DRAM_WATTS_PER_GB, CpuPowerModel, IdleAwarePower
from metering.work import Method
from serving.config import GatewayConfig
from serving.engines.base import EngineModel
from serving.engines.simulated import SIMULATED_CONFIG
from serving.placement.metering_setup import build_node_meter, engine_power, model_profile, node_hardware, power_plan
from tests.unit.metering.power.test_rapl import Tree


def config(**sections: object) -> GatewayConfig:
    return GatewayConfig.model_validate(sections)


def test_a_simulated_engine_runs_on_its_declared_device_only() -> None:
    chosen = config(engine={"kind": "simulated"})
    plan = power_plan(chosen, node_hardware(chosen))
    assert plan.meters == ()
    assert plan.rejected == ()
    assert [(type(model), model.method) for model in plan.load_models] == [(IdleAwarePower, Method.SIMULATED)]


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


def test_without_rapl_a_cpu_is_modelled_and_the_plan_says_why(tmp_path: Path) -> None:
    plan = engine_power(DetectedHardware(CPU), (0,), powercap=tmp_path)
    assert [type(meter) for meter in plan.meters] == [CpuPowerModel]
    assert plan.chosen == {"cpu": "idle_aware"}
    assert [entry.name for entry in plan.rejected] == ["rapl"]
    assert "no RAPL package" in plan.rejected[0].reason


def test_a_cpu_whose_rapl_can_be_read_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    Tree(tmp_path)
    plan = engine_power(DetectedHardware(CPU), (0, 1), powercap=tmp_path)
    (meter,) = plan.meters
    assert (meter.name, meter.method) == ("rapl_by_cores", Method.MEASURED)
    assert plan.rejected == ()
    idle = {name: reading.idle_watts for name, reading in meter.read(0.0).components.items()}
    memory_watts = DRAM_WATTS_PER_GB * psutil.virtual_memory().total / 1e9
    assert idle == {"cpu": pytest.approx(1.0), "host": pytest.approx(1.0 + memory_watts)}


def test_rapl_does_not_measure_a_device_that_was_only_named(tmp_path: Path) -> None:
    Tree(tmp_path)
    plan = engine_power(DetectedHardware(replace(CPU, kind="gpu", name="H100")), (0,), powercap=tmp_path)
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
