from __future__ import annotations

import pytest

from metering.power.model import CpuPowerModel, IdleAwarePower
from metering.work import Method
from serving.config import GatewayConfig
from serving.engines.base import EngineModel
from serving.engines.simulated import SIMULATED_CONFIG
from serving.placement.metering_setup import build_node_meter, model_profile, node_hardware, power_meters


def config(**sections: object) -> GatewayConfig:
    return GatewayConfig.model_validate(sections)


def test_a_simulated_engine_runs_on_its_declared_device_only() -> None:
    chosen = config(engine={"kind": "simulated"})
    meters, models, refusals = power_meters(chosen, node_hardware(chosen))
    assert meters == []
    assert refusals == []
    assert [(type(model), model.method) for model in models] == [(IdleAwarePower, Method.SIMULATED)]


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
    meters, models, _ = power_meters(chosen, hardware)
    assert models == []
    assert isinstance(meters[0], CpuPowerModel)
    assert [component.name for component in meters[0].components] == ["cpu", "host"]


def test_a_config_that_is_not_understood_gives_no_flops() -> None:
    chosen = config(engine={"kind": "simulated"})
    hardware = node_hardware(chosen)
    known = model_profile(EngineModel("m", config=SIMULATED_CONFIG, dtype="bfloat16"), hardware)
    assert known.architecture is not None
    assert known.peak_flops == chosen.engine.simulated.peak_flops
    assert model_profile(EngineModel("m", config={"model_type": "new"}), hardware).architecture is None
    assert model_profile(EngineModel("m"), hardware).architecture is None
