"""What a cluster of several machines asks of its configuration, and of each node's environment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from serving.config import ConfigError, GatewayConfig, is_loopback
from serving.placement import ray_runtime
from serving.placement.ray_service import for_cluster
from serving.reload import Key, is_live

TOKEN_VARIABLE = "WATTGATE_CLUSTER_TOKEN"
_SHORTEST_TOKEN = 16


def cluster_token(environment: Mapping[str, str]) -> str:
    """Whoever has it may command the cluster.

    Raises:
        ConfigError: not set, or too short.
    """
    token = environment.get(TOKEN_VARIABLE, "")
    if len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"{TOKEN_VARIABLE} must be set to the same secret of at least {_SHORTEST_TOKEN} characters on every node, "
            "as `openssl rand -hex 32` makes one: it protects Ray's ports"
        )
    return token


def node_environment(config: GatewayConfig, folder: Path, token: str) -> dict[str, str]:
    """Variables of every Ray process of a node."""
    shared = ray_runtime.proxy_environment(
        folder,
        longest_request_seconds=config.server.request_timeout_seconds,
        affinity=config.server.affinity,
        cluster=True,
    )
    return shared | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def cluster_config(config: GatewayConfig) -> GatewayConfig:
    """What a cluster needs.

    Raises:
        ConfigError: a setting that only makes sense on one machine, with the mend.
    """
    config = for_cluster(config)
    if is_loopback(config.server.host):
        raise ConfigError(
            "server.host: in a cluster replicas listen on their node's address; set 0.0.0.0, and API keys"
        )
    if config.server.port == 0:
        raise ConfigError("server.port: 0 is for one machine; in a cluster every node has the same port")
    return config


def version_of(config: GatewayConfig) -> str:
    """The same for configurations that differ in live settings only: another one replaces the replicas."""

    def plain(value: Any, key: Key = ()) -> Any:
        if is_live(key):
            return None
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        if isinstance(value, BaseModel):
            return {name: plain(part, (*key, name)) for name, part in value if name != "replicas"}
        if isinstance(value, dict):
            return {str(name): plain(part, (*key, str(name))) for name, part in value.items()}
        return [plain(part, (*key, "-")) for part in value] if isinstance(value, tuple | list) else str(value)

    return hashlib.blake2b(json.dumps(plain(config), sort_keys=True).encode(), digest_size=8).hexdigest()
