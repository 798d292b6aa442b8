"""The Serve application for a Ray cluster that is already there, as KubeRay's RayService starts it.

``import_path: serving.placement.ray_service:build`` with ``args: {config: PATH}``. The pods set what
``ray_runtime.proxy_environment`` sets: see ``deploy/kuberay``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.config import ConfigError, GatewayConfig
from serving.config_sources import load_config
from serving.placement.placed import placed_models
from serving.placement.redis_servers import RedisUrls
from serving.placement.replica import serve_deployment

LEAVE_SECONDS = 180.0
"""Above the time between two replicas of a roll-out, below what an idle GPU may cost."""
METRICS_PORT = 9464
"""OpenTelemetry's default for a Prometheus exporter."""


def build(arguments: Mapping[str, str]) -> Any:
    """``config``: the YAML file, at the same path in every pod.

    Raises:
        ConfigError: a wrong file; or a setting that only makes sense on one machine.
    """
    config = with_nodes_that_go(for_cluster(load_config(Path(arguments["config"])).config))
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        raise ConfigError("PROMETHEUS_MULTIPROC_DIR is not set: the node's replicas share their counters there")
    return serve_deployment(config, RedisUrls.shared(config))


def with_nodes_that_go(config: GatewayConfig) -> GatewayConfig:
    """Its nodes come and go: one without a replica is given back."""
    seconds = config.metering.leave_idle_node_seconds or LEAVE_SECONDS
    return config.model_copy(
        update={"metering": config.metering.model_copy(update={"leave_idle_node_seconds": seconds})}
    )


def for_cluster(config: GatewayConfig) -> GatewayConfig:
    """The configuration with an exporter on each node: the gateway's own port answers from any of them.

    Raises:
        ConfigError: a setting that only makes sense on one machine.
    """
    if config.cache.tier != "off" and config.cache.redis == "embedded":
        raise ConfigError("cache.redis: embedded belongs to one machine; set WATTGATE_REDIS_URL to the cluster's Redis")
    if config.cache.tier != "off" and config.cache.tenant_secret is None:
        raise ConfigError("cache.tenant_secret: replicas must share one; set WATTGATE_CACHE_SECRET")
    if any(placed.apart for placed in placed_models(config)):
        raise ConfigError(
            "models, fallback: replicas of a model's own are for one machine (`wattgate serve`); on a cluster run one "
            "model, and a gateway elsewhere that has several clusters as upstreams"
        )
    server = config.server.model_copy(update={"metrics_port": config.server.metrics_port or METRICS_PORT})
    return config.model_copy(update={"server": server})
