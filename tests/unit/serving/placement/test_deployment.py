from __future__ import annotations

from typing import Any

import pytest

from serving.config import GatewayConfig
from serving.placement.deployment import actor_options, has_room_beside


def config(**values: Any) -> GatewayConfig:
    return GatewayConfig.model_validate(values)


def test_an_engine_asks_ray_for_the_gpus_that_it_runs_on() -> None:
    engine = config(engine={"kind": "vllm", "vllm": {"tensor_parallel_size": 2}}).engine
    assert actor_options(engine, gpus=4) == {"num_cpus": 0, "num_gpus": 2}


@pytest.mark.parametrize("kind", ["simulated", "upstream"])
def test_an_engine_without_a_device_asks_for_none(kind: str) -> None:
    assert actor_options(config(engine={"kind": kind}).engine, gpus=4) == {"num_cpus": 0}
    assert actor_options(None, gpus=4) == {"num_cpus": 0}


def test_without_a_gpu_nothing_is_asked_for() -> None:
    assert actor_options(config(engine={"kind": "vllm"}).engine, gpus=0) == {"num_cpus": 0}


@pytest.mark.parametrize(
    ("kind", "server", "gpus", "nodes", "room"),
    [
        ("simulated", {}, 0, 1, True),
        ("upstream", {}, 0, 1, True),
        ("vllm", {}, 0, 1, False),
        ("vllm", {}, 1, 1, False),
        ("vllm", {}, 2, 2, True),
        ("simulated", {"replicas": 2}, 0, 2, False),
        ("simulated", {"replicas_per_node": 1}, 0, 1, False),
        ("simulated", {"replicas_per_node": 1}, 0, 2, True),
    ],
)
def test_the_only_replica_is_replaced_beside_itself_where_there_is_room(
    kind: str, server: dict[str, int], gpus: int, nodes: int, room: bool
) -> None:
    assert has_room_beside(config(engine={"kind": kind}, server=server), gpus=gpus, nodes=nodes) == room
