"""`wattgate serve --address`: the gateway on a cluster that is already there."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from serving.config import ConfigError, GatewayConfig
from serving.placement import ray_runtime
from serving.placement.cluster import TOKEN_VARIABLE, cluster_config, node_environment, version_of
from serving.placement.janitor import sweep
from serving.placement.node_link import meters_alive
from serving.placement.ray_runtime import GATEWAY, Application
from serving.placement.ray_service import shared_redis
from serving.placement.replica import serve_deployment
from serving.placement.supervisor import StartError


class JoinedGateway:
    """The gateway as an application of a cluster that is already there; ``close`` takes it away and leaves the cluster.

    ``address``: the head's, as `wattgate node` said it; this process runs on one of the nodes.
    """

    def __init__(self, config: GatewayConfig, address: str, token: str, tell: Callable[[str], None]) -> None:
        self.config = cluster_config(config)
        self._address, self._token, self._tell = address, token, tell
        self._folder: Path | None = None
        self._rolling: threading.Thread | None = None
        self._failure: str | None = None

    @property
    def url(self) -> str:
        return f"http://{self._address.rpartition(':')[0]}:{self.config.server.port}"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wg-"))
        os.environ.update(node_environment(self.config, self._folder, self._token))
        import ray

        self._tell(f"connecting to the cluster at {self._address}")
        try:
            ray.init(address=self._address, namespace="wattgate", log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            first = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise StartError(
                f"no cluster at {self._address} ({first}): start `wattgate node` on this machine first, with the same "
                f"{TOKEN_VARIABLE}"
            ) from None
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        self._tell(f"starting {self.config.server.replicas} replica(s) on {nodes} node(s)")
        ray_runtime.start_serve(self.config.server.host, self.config.server.port, "EveryNode")
        try:
            self._deploy()
        except Exception as error:
            raise StartError(f"Ray Serve could not start the gateway: {_reason(error)}") from None

    def _deploy(self) -> None:
        gateway = serve_deployment(self.config, shared_redis(self.config), version=version_of(self.config))
        ray_runtime.run_applications([Application(GATEWAY, "/", gateway)])

    def apply(self, config: GatewayConfig) -> None:
        """Live settings at once; others by replacing the replicas one by one, while the rest serves."""
        if self._rolling is not None and self._rolling.is_alive():
            self._tell("not reloaded: the last change is still being rolled out")
            return
        try:
            new = cluster_config(config)
        except ConfigError as error:
            self._tell(f"not reloaded: {error}")
            return
        rolls = version_of(new) != version_of(self.config)
        self.config = new
        if not rolls:
            self._deploy()
            return
        self._tell("replacing the replicas one by one")
        self._rolling = threading.Thread(target=self._roll, daemon=True)
        self._rolling.start()

    def _roll(self) -> None:
        try:
            self._deploy()
            self._tell("all replicas are replaced")
        except Exception as error:
            self._tell(f"the replicas could not be replaced: {_reason(error)}")

    def watch(self) -> None:
        """Nothing to pass on: replicas on other machines write their own logs."""

    def close(self) -> None:
        """Idempotent; replicas finish what they accepted."""
        if self._folder is None:
            return
        import ray
        from ray import serve

        if ray.is_initialized():
            with contextlib.suppress(Exception):
                serve.delete(GATEWAY)
            for name in meters_alive().values():
                with contextlib.suppress(Exception):
                    ray.kill(ray.get_actor(name, namespace="wattgate"))
            with contextlib.suppress(Exception):
                serve.shutdown()
            ray.shutdown()
        sweep(self._folder)
        self._folder = None


def _reason(error: Exception) -> str:
    """What a replica said when it failed, else what Ray Serve says of that."""
    from ray import serve

    said = str(error)
    with contextlib.suppress(Exception):
        for deployment in serve.status().applications[GATEWAY].deployments.values():
            said = deployment.message or said
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
