"""What all nodes of a cluster record, asked of their meters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from serving.operations.cluster_records import ClusterRecords, Kind, Record, merged
from serving.placement.recently_seen import RecentlySeen

_NODE_SECONDS = 2.0
"""For a node to answer; one that does not is left out, and said to be."""


class AllNodes:
    """``NodesAsked``. ``meters`` asks Ray (it blocks): the living nodes' meters by address.

    A node that went lately is asked for too, so that what it took along is told to be missing.
    """

    def __init__(self, meters: Callable[[], Mapping[str, Any]], seen: RecentlySeen | None = None) -> None:
        self._meters = meters
        self._seen = seen or RecentlySeen()

    async def __call__(self, kind: Kind, asked: float | str | None) -> ClusterRecords:
        meters = await asyncio.to_thread(self._meters)
        nodes = await asyncio.to_thread(self._seen, meters)
        answers = await asyncio.gather(*(self._ask(meters.get(node), kind, asked) for node in nodes))
        return merged(dict(zip(nodes, answers, strict=True)))

    async def _ask(self, meter: Any, kind: Kind, asked: float | str | None) -> list[Record] | None:
        if meter is None:
            return None
        try:
            async with asyncio.timeout(_NODE_SECONDS):
                found: list[Record] = await getattr(meter, kind).remote(asked)
        # Ray's errors, whatever they are: an actor that died, a node that went, no answer in time
        except Exception:
            return None
        return found
