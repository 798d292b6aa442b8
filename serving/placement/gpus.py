"""GPUs of a machine or cluster, and what the engines of a configuration take of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

from metering.hardware.nvml import list_gpus
from metering.hardware.visible import VARIABLE, visible_devices
from serving.config import ConfigError, GatewayConfig
from serving.engines.settings import EngineSettings
from serving.engines.vllm import has_gpu
from serving.placement.placed import placed_models

_SHARED = 0.5
"""Engines that take at most this much of a GPU's memory share one."""
_UNSEEN = 1e-9


def gpus_here() -> int:
    """Those of this machine that this process may work on. 0 without one, and where the driver does not list them:
    engines then run where CUDA puts them."""
    return len(visible_devices(os.environ.get(VARIABLE), list_gpus())) if has_gpu() else 0


def gpus_of_cluster() -> float:
    """Those that the Ray cluster of this process knows of."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0.0)) if ray.is_initialized() else 0.0


def own_engine(config: GatewayConfig) -> EngineSettings | None:
    """The engine in the gateway's replicas; None where they hold none."""
    return None if placed_models(config) else config.engine


def gpu_share(engine: EngineSettings | None) -> float:
    """GPUs of one replica of the engine, where it runs on GPUs: whole ones, or a part of one that others share."""
    if engine is None or engine.kind != "vllm":
        return 0
    part = engine.vllm.gpu_memory_utilization
    return part if engine.vllm.gpus == 1 and part <= _SHARED else engine.vllm.gpus


def gpus_needed(config: GatewayConfig) -> int:
    """GPUs of all replicas; a part of one does not lie on two."""
    return _whole(share for share, replicas in _shares(config) for _ in range(replicas))


def check_gpus(config: GatewayConfig, available: int) -> None:
    """Raises:
    ConfigError: the replicas need more GPUs than this machine has; not where it has none, or none can be counted.
    """
    needed = gpus_needed(config)
    if not 0 < available < needed:
        return
    parts = " + ".join(f"{replicas} x {share:g}" for share, replicas in _shares(config) if share)
    raise ConfigError(
        f"{parts} GPUs (replicas x tensor_parallel_size) are {needed}, and this process may work on {available}: take "
        "fewer replicas, a smaller tensor_parallel_size, or let engines share a GPU, with "
        f"engine.vllm.gpu_memory_utilization at most {_SHARED:g} each"
    )


def _shares(config: GatewayConfig) -> list[tuple[float, int]]:
    """GPUs of a replica, and how many replicas, of each engine here."""
    placed = [(gpu_share(one.settings.engine), one.settings.replicas) for one in placed_models(config)]
    return placed or [(gpu_share(config.engine), config.server.replicas)]


def _whole(shares: Iterable[float]) -> int:
    """GPUs that hold them, filled with the largest parts first."""
    gpus: list[float] = []
    for share in sorted(shares, reverse=True):
        if share >= 1:
            gpus += [1.0] * math.ceil(share)
            continue
        at = next((index for index, used in enumerate(gpus) if used + share <= 1 + _UNSEEN), None)
        if at is None:
            gpus.append(share)
        else:
            gpus[at] += share
    return len(gpus)
