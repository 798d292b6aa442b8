from __future__ import annotations

from typing import Any

import pytest

from metering.hardware.nvml import NvmlDevice
from serving.config import ConfigError, GatewayConfig
from serving.placement import gpus
from serving.placement.gpus import check_gpus, gpu_share, gpus_here, gpus_needed


def config(**values: Any) -> GatewayConfig:
    return GatewayConfig.model_validate(values)


def vllm(**settings: Any) -> dict[str, Any]:
    return {"kind": "vllm", "vllm": settings}


THREE = tuple(NvmlDevice(index, "L4", f"GPU-{index}") for index in range(3))


@pytest.mark.parametrize(("setting", "count"), [(None, 3), ("1,2", 2), ("", 0), ("GPU-2", 1)])
def test_the_gpus_that_this_process_may_work_on_are_counted(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, count: int
) -> None:
    monkeypatch.setattr(gpus, "has_gpu", lambda: True)
    monkeypatch.setattr(gpus, "list_gpus", lambda: THREE)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert gpus_here() == count


def test_without_a_gpu_the_driver_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "has_gpu", lambda: False)
    monkeypatch.setattr(gpus, "list_gpus", lambda: pytest.fail("asked"))
    assert gpus_here() == 0


def test_a_replica_takes_as_many_gpus_as_its_model_is_split_over() -> None:
    assert gpu_share(config(engine=vllm()).engine) == 1
    piped = vllm(tensor_parallel_size=2, extra={"pipeline-parallel-size": 2})
    assert gpu_share(config(engine=piped).engine) == 4


def test_engines_that_take_at_most_half_of_the_memory_share_a_gpu() -> None:
    assert gpu_share(config(engine=vllm(gpu_memory_utilization=0.4)).engine) == 0.4
    models = {name: {"engine": vllm(gpu_memory_utilization=0.4)} for name in "abc"}
    assert gpus_needed(config(models=models)) == 2, "no engine lies on two"
    assert gpus_needed(config(models=models | {"d": {"engine": vllm(tensor_parallel_size=2)}})) == 4


def test_replicas_and_models_that_do_not_fit_are_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"2 x 2 GPUs .* are 4, and this process may work on 3"):
        check_gpus(config(engine=vllm(tensor_parallel_size=2), server={"replicas": 2}), 3)
    models = {"a": {"engine": vllm(), "replicas": 2}, "b": {"engine": vllm()}, "c": {"engine": {"kind": "simulated"}}}
    with pytest.raises(ConfigError, match=r"2 x 1 \+ 1 x 1 GPUs .* are 3, and this process may work on 2"):
        check_gpus(config(models=models), 2)
    check_gpus(config(models=models), 3)


def test_a_machine_whose_gpus_are_not_counted_refuses_nothing() -> None:
    check_gpus(config(engine=vllm(), server={"replicas": 8}), 0)


def test_the_gateway_holds_no_gpu_where_its_models_are_apart() -> None:
    assert gpus.own_engine(config(models={"a": {"engine": vllm()}})) is None
    assert gpus.own_engine(config(engine=vllm())) is not None
