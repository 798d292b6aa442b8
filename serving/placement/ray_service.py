"""The Serve application for a Ray cluster that is already there, as KubeRay's RayService starts it.

``import_path: serving.placement.ray_service:build`` with ``args: {config: PATH}``. The pods set what
``ray_runtime.environment`` sets on one machine: see ``deploy/kuberay``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.config import ConfigError, load_config
from serving.placement.placed import placed_models
from serving.placement.replica import serve_deployment


def build(arguments: Mapping[str, str]) -> Any:
    """``config``: the YAML file, at the same path in every pod.

    Raises:
        ConfigError: a wrong file; or a setting that only makes sense on one machine.
    """
    config = load_config(Path(arguments["config"])).config
    if config.cache.tier != "off" and config.cache.redis == "embedded":
        raise ConfigError("cache.redis: embedded belongs to one machine; set WATTGATE_REDIS_URL to the cluster's Redis")
    if config.cache.tier != "off" and config.cache.tenant_secret is None:
        raise ConfigError("cache.tenant_secret: replicas must share one; set WATTGATE_CACHE_SECRET")
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        raise ConfigError("PROMETHEUS_MULTIPROC_DIR is not set: the node's replicas share their counters there")
    if any(placed.apart for placed in placed_models(config)):
        raise ConfigError(
            "models, fallback: replicas of a model's own are for one machine (`wattgate serve`); on a cluster run one "
            "RayService a model, and a gateway that has them as upstreams"
        )
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).parent
    return serve_deployment(config, folder, None if config.cache.tier == "off" else config.cache.redis)
