"""`wattgate serve --address`: the gateway on a cluster that is already there."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serving.config import ConfigError, GatewayConfig
from serving.placement import ray_runtime
from serving.placement.applications import (
    GATEWAY,
    Application,
    ApplicationFailed,
    all_run,
    hand_over,
    run_applications,
)
from serving.placement.cluster import TOKEN_VARIABLE, cluster_config, node_environment, version_of
from serving.placement.deployment import has_room_now
from serving.placement.gpus import gpus_needed, gpus_of_cluster
from serving.placement.held_caps import RayBoard
from serving.placement.janitor import sweep
from serving.placement.node_meters import meters_alive, stop_node_meters
from serving.placement.recently_seen import forget_all
from serving.placement.redis_servers import RedisUrls
from serving.placement.replica import serve_deployment
from serving.placement.run_folder import Started
from serving.placement.supervisor import StartError
from serving.reload import differences, is_live

_OWNER = "wattgate-gateway"
_OWNER_SECONDS = 15.0
"""For the cluster to notice that a gateway was killed."""


def with_what_stays(running: GatewayConfig, asked: GatewayConfig) -> GatewayConfig:
    """``asked``, with what replacing the replicas does not change: the address, and what the nodes' meters were made
    with, for they outlive the replicas.
    """
    address = {name: getattr(running.server, name) for name in ("host", "port", "metrics_port")}
    telemetry = asked.telemetry.model_copy(update={"engine_model": running.telemetry.engine_model})
    server = asked.server.model_copy(update=address)
    return asked.model_copy(update={"server": server, "metering": running.metering, "telemetry": telemetry})


def exporters_keys(running: GatewayConfig, new: GatewayConfig) -> list[str]:
    """What is to be told of keys that the replicas take over and the nodes' own `/metrics` does not."""
    if running.server.metrics_port is None:
        return []
    changes = (change for change in differences(running.access, new.access, ("access",)) if not is_live(change.key))
    return [f"not applied at server.metrics_port of the nodes: {change}: it takes a restart" for change in changes]


def how_replaced(config: GatewayConfig, *, room: bool) -> str:
    """What replacing the replicas means for those who ask meanwhile; ``room``: for another one beside the only one."""
    if config.server.replicas > 1:
        return "replacing the replicas one by one"
    if room:
        return "replacing the replica once another one beside it is ready"
    return (
        "replacing the only replica: nothing answers from when it ends until its successor has loaded the model; with "
        "server.replicas: 2, or a device to spare, there would be no gap"
    )


class _Owner:
    """Of the cluster: its name can be had once."""


class JoinedGateway(Started):
    """The gateway as an application of a cluster that is already there; ``close`` takes it away and leaves the cluster.

    ``address``: the head's, as `wattgate node` said it; this process runs on one of the nodes.
    """

    def __init__(self, config: GatewayConfig, address: str, token: str, tell: Callable[[str], None]) -> None:
        self.config = cluster_config(config)
        self._address, self._token, self._tell = address, token, tell
        self._folder: Path | None = None
        self._owner: object | None = None
        """Held: with it the cluster's gateway is this one."""
        self._rolling: Sequence[Application] = ()
        """What replaces its replicas just now."""

    @property
    def url(self) -> str:
        return f"http://{self._address.rpartition(':')[0]}:{self.config.server.port}"

    def start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wg-"))
        os.environ.update(node_environment(self.config, self._folder, self._token))
        self._tell(f"connecting to the cluster at {self._address}")
        try:
            ray_runtime.enter_ray(address=self._address, logging_level=logging.CRITICAL)
        except Exception as error:
            first = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise StartError(
                f"no cluster at {self._address} ({first}): start `wattgate node` on this machine first, with the same "
                f"{TOKEN_VARIABLE}"
            ) from None
        import ray

        self._owner = self._own_cluster()
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        self._tell(f"starting {self.config.server.replicas} replica(s) on {nodes} node(s)")
        needed, there = gpus_needed(self.config), gpus_of_cluster()
        if 0 < there < needed:
            self._tell(f"the replicas need {needed} GPUs, the cluster has {there:g}: the others wait for more nodes")
        ray_runtime.start_serve(self.config.server.host, self.config.server.port, "EveryNode")
        try:
            run_applications(self._applications(self.config))
        except ApplicationFailed as error:
            raise StartError(f"Ray Serve could not start the gateway: {error}") from None

    def _own_cluster(self) -> object:
        """An actor whose name is taken while this process lives. Raises StartError where another gateway has it."""
        import ray

        until = time.monotonic() + _OWNER_SECONDS
        while True:
            try:
                return ray.remote(num_cpus=0)(_Owner).options(name=_OWNER, namespace="wattgate").remote()
            except ValueError:
                # of one that was killed a moment ago it is taken a little longer
                if time.monotonic() > until:
                    raise StartError(
                        f"a gateway runs on the cluster at {self._address} already: end that `wattgate serve`, or send "
                        "it a SIGHUP with its changed configuration; a second gateway wants a cluster of its own"
                    ) from None
            time.sleep(0.5)

    def _applications(self, config: GatewayConfig) -> list[Application]:
        gateway = serve_deployment(config, RedisUrls.shared(config), version=version_of(config))
        return [Application(GATEWAY, "/", gateway)]

    def apply(self, config: GatewayConfig) -> list[str]:
        """Live settings at once; others by replacing the replicas one by one, while the rest serves, where there is a
        rest. Says in lines what comes of it.
        """
        if self._rolling:
            return ["not reloaded: the last change is still being rolled out"]
        try:
            new = cluster_config(config)
        except ConfigError as error:
            return [f"not reloaded: {error}"]
        asked, new = new, with_what_stays(self.config, new)
        late = [f"not applied: {change}: it takes a restart" for change in differences(new, asked)]
        late += exporters_keys(self.config, new)
        changes = [str(change) for change in differences(self.config, new)]
        if not changes:
            return late or ["nothing has changed"]
        rolls = version_of(new) != version_of(self.config)
        wanted = self._applications(new)
        try:
            hand_over(wanted)
        except ApplicationFailed as error:
            return [f"not reloaded: {error}"]
        self.config = new
        lines = [*late, f"applied: {', '.join(changes)}"]
        if rolls:
            self._rolling = wanted
            lines.append(how_replaced(new, room=has_room_now(new)))
        return lines

    def watch(self) -> None:
        """Tell how a roll-out goes; replicas on other machines write their own logs."""
        if not self._rolling:
            return
        try:
            if not all_run(self._rolling):
                return
            self._tell("all replicas are replaced")
        except ApplicationFailed as error:
            self._tell(f"the replicas could not be replaced: {error}")
        self._rolling = ()

    def close(self) -> None:
        """Idempotent; replicas finish what they accepted."""
        if self._folder is None:
            return
        import ray
        from ray import serve

        # a gateway that found another one here takes nothing down
        if ray.is_initialized() and self._owner is not None:
            with contextlib.suppress(Exception):
                serve.delete(GATEWAY)
            with contextlib.suppress(Exception):
                RayBoard().clear()
            with contextlib.suppress(Exception):
                forget_all()
            with contextlib.suppress(Exception):
                # their open windows are booked and their history is written before they go
                stop_node_meters()
            for name in meters_alive().values():
                with contextlib.suppress(Exception):
                    ray.kill(ray.get_actor(name, namespace="wattgate"))
            with contextlib.suppress(Exception):
                serve.shutdown()
        if ray.is_initialized():
            ray.shutdown()
        sweep(self._folder)
        self._folder = None
