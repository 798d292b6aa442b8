"""How every replica of ours is deployed on Ray Serve."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from serving.config import GatewayConfig

VERSION = "1"
"""The same for the life of a run: without one Ray draws a new version for each deployment, and every change of
the live settings would replace the replica and load the model again.
"""


def node_folder() -> Path:
    """What the processes of this node share; each node of a cluster has its own."""
    return Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).parent


def our_deployment(replica: type, config: GatewayConfig, *, name: str, replicas: int, version: str = VERSION) -> Any:
    """A deployment of one of our classes."""
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
        ray_actor_options={"num_cpus": 0},
    )
    # Ray keeps this argument to itself; a config file deployed through its REST API sets it the same way
    return deployment.options(version=version, _internal=True)
