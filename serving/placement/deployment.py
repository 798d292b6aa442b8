"""How every replica of ours is deployed on Ray Serve."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from serving.config import GatewayConfig
from serving.engines.settings import EngineSettings
from serving.placement.gpus import gpu_share, gpus_needed, gpus_of_cluster, own_engine

VERSION = "1"
"""The same for the life of a run: without one Ray draws a new version for each deployment, and every change of
the live settings would replace the replica and load the model again.
"""


def node_folder() -> Path:
    """What the processes of this node share; each node of a cluster has its own."""
    return Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).parent


def our_deployment(
    replica: type,
    config: GatewayConfig,
    *,
    name: str,
    replicas: int,
    version: str = VERSION,
    engine: EngineSettings | None = None,
    surge: bool = False,
) -> Any:
    """A deployment of one of our classes. ``engine``: which runs in each replica; ``surge``: a replica is replaced once
    another one beside it is ready, and not before that."""
    from ray import serve

    deployment = serve.deployment(
        replica,
        name=name,
        num_replicas=replicas,
        # admission is ours, counted and checked in one step: Ray's own limit only has to be out of the way
        max_ongoing_requests=2 * config.server.max_concurrent_requests,
        health_check_period_s=2,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=config.server.shutdown_grace_seconds,
        max_surge_percent=100 if surge else 0,
        ray_actor_options=actor_options(engine, gpus_of_cluster()),
    )
    # Ray keeps this argument to itself; a config file deployed through its REST API sets it the same way
    return deployment.options(version=version, _internal=True)


def actor_options(engine: EngineSettings | None, gpus: float) -> dict[str, float]:
    """``gpus``: of the cluster. Ray shows each replica GPUs of its own (``CUDA_VISIBLE_DEVICES``): two engines that
    choose for themselves both take the first."""
    share = gpu_share(engine) if gpus else 0
    return {"num_cpus": 0, "num_gpus": share} if share else {"num_cpus": 0}


def has_room_beside(config: GatewayConfig, *, gpus: float, nodes: int) -> bool:
    """Whether the only replica of the gateway can be replaced by one that is loaded beside it: an engine that takes no
    device of its own always can, one on a CPU would halve its neighbour's cores and memory.

    ``gpus`` and ``nodes``: of the cluster.
    """
    if config.server.replicas != 1 or (config.server.replicas_per_node == 1 and nodes < 2):
        return False
    engine = own_engine(config)
    if engine is None or engine.kind != "vllm":
        return True
    return gpus >= gpus_needed(config) + gpu_share(engine)


def has_room_now(config: GatewayConfig) -> bool:
    """``has_room_beside`` in the Ray cluster of this process."""
    import ray

    if not ray.is_initialized():
        return False
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return has_room_beside(config, gpus=gpus_of_cluster(), nodes=nodes)
