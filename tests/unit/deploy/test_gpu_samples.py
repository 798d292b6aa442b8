"""The sample configurations for GPU machines: no GPU is needed to read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.config import GatewayConfig
from serving.config_sources import load_config
from serving.placement.cluster import cluster_config

GPU = Path(__file__).parents[3] / "deploy" / "gpu"
KEYS = {"WATTGATE_API_KEYS": "alice=key-of-alice", "WATTGATE_CACHE_SECRET": "s" * 32}
SAMPLES = sorted(path.stem for path in GPU.glob("*.yaml"))


def loaded(name: str) -> GatewayConfig:
    return load_config(GPU / f"{name}.yaml", {}, KEYS).config


def test_there_is_a_sample_of_each_kind() -> None:
    assert SAMPLES == ["mig", "replicas", "tensor-parallel"]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_a_configuration_of_the_real_engine_whose_cap_fits_its_batch(name: str) -> None:
    config = loaded(name)
    assert config.engine.kind == "vllm"
    assert config.admission.max_concurrency <= config.engine.vllm.max_batch
    assert "NOT RUN HERE" in (GPU / f"{name}.yaml").read_text()


def test_the_slice_s_sample_names_no_source_of_energy_that_no_setting_can_read() -> None:
    text = (GPU / "mig.yaml").read_text()
    assert "its energy is unknown" in text
    assert "exporter" not in text


def test_tensor_parallelism_has_one_replica_for_its_gpus() -> None:
    config = loaded("tensor-parallel")
    assert config.engine.vllm.tensor_parallel_size == 4
    assert config.server.replicas == 1


def test_replicas_are_one_a_machine_of_a_cluster_and_share_their_redis() -> None:
    config = cluster_config(loaded("replicas"))
    assert (config.server.replicas, config.server.replicas_per_node) == (4, 1)
    assert config.engine.vllm.tensor_parallel_size == 1
    assert config.cache.redis is not None
