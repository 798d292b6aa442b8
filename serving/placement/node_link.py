"""A replica's way to the meter of its node: the actor, found or made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from metering.receipt import Receipt
from metering.settlement import Acknowledgement
from metering.work import WorkBatch
from serving.config import GatewayConfig
from serving.meter_link import MeterLink, flush_seconds
from serving.metrics import Metrics
from serving.placement.node_meters import NODE_METER, other_meters

_HEAD = "node:__internal_head__"
"""A resource that Ray's head node has."""
_OTHER_NODE_SECONDS = 2.0
"""For another node's meter to find a receipt."""


class ActorMeter:
    """``NodeMeterClient`` over the node's actor. ``others`` asks Ray (it blocks) for the other nodes': a receipt lies
    where the request ran, and is asked for anywhere."""

    def __init__(self, handle: Any, others: Callable[[], list[Any]] = list) -> None:
        self._handle = handle
        self._others = others

    async def submit(self, batch: WorkBatch) -> Acknowledgement:
        answer: Acknowledgement = await self._handle.submit.remote(batch)
        return answer

    async def receipt(self, tenant: str, request_id: str) -> Receipt | None:
        answer: Receipt | None = await self._handle.receipt.remote(tenant, request_id)
        if answer is not None:
            return answer
        asked = [handle.receipt.remote(tenant, request_id) for handle in await asyncio.to_thread(self._others)]
        for answered in asked:
            # a node that has gone took its receipts along
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_OTHER_NODE_SECONDS):
                    answer = await answered
                if answer is not None:
                    return answer
        return None

    async def finals(self, keys: Sequence[tuple[str, str]]) -> list[Receipt | None]:
        answer: list[Receipt | None] = await self._handle.finals.remote(list(keys))
        return answer


def node_meter_handle(config: GatewayConfig, multiprocess_folder: str, source: str) -> Any:
    """The actor of this node, made by whichever replica comes first. ``source``: who will attach to it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from serving.placement.node_actor import NodeMeterActor

    node_id = ray.get_runtime_context().get_node_id()
    leaves = config.metering.leave_idle_node_seconds
    if leaves is not None and _is_head(node_id):
        leaves = None
    actor = (
        ray.remote(NodeMeterActor)
        .options(
            name=f"{NODE_METER}-{node_id}",
            namespace="wattgate",
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=1000,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        .remote(config, multiprocess_folder, leaves)
    )
    if leaves is not None:
        # a model may take longer to load than the meter would stay
        actor.expect.remote(source)
    return actor


def _is_head(node_id: str) -> bool:
    import ray

    return any(node["NodeID"] == node_id and _HEAD in node["Resources"] for node in ray.nodes())


def meter_link(
    actor: Any, config: GatewayConfig, source: str, metrics: Metrics, host_watts_per_core: float | None
) -> MeterLink:
    """A replica's line to the node's meter."""
    return MeterLink(
        source,
        ActorMeter(actor, other_meters),
        flush_seconds=flush_seconds(config.metering.window_seconds),
        on_fault=lambda fault: metrics.add("wattgate_meter_faults_total", 1, fault),
        host_watts_per_core=host_watts_per_core,
    )
