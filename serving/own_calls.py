"""Calls that the gateway itself makes of a model about a lookup, where a slot is free and nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from cache.identity import CHAT_PATH
from cache.lookup import Lookup
from serving.call import Call, parsed_answer
from serving.engine_runs import EngineRuns
from serving.errors import GatewayError
from serving.shadow import TENANT
from serving.tenancy.tenant import Priority

log = logging.getLogger("wattgate")

_SHADOW_SECONDS = 60.0
"""For a verification in all: then it is given up, and its work is booked as far as it came."""
_GREY_ZONE_SECONDS = 2.0
"""For one token; a model that takes longer is asked in vain."""


class OwnCalls:
    """Each returns None where there was no room, or no answer."""

    def __init__(self, runs: EngineRuns, clock: Callable[[], float] = time.monotonic) -> None:
        self._runs = runs
        self._clock = clock

    async def shadow(self, lookup: Lookup) -> dict[str, Any] | None:
        """A hit's request on the model; booked as ``shadow``."""
        request = lookup.request
        payload = {name: value for name, value in request.payload.items() if not name.startswith("stream")}
        return await self._answer("shadow", TENANT, request.path, payload, Priority.BATCH, _SHADOW_SECONDS)

    async def grey_zone(self, lookup: Lookup, payload: dict[str, Any]) -> dict[str, Any] | None:
        """A question about a lookup; booked to its tenant like any work of his."""
        tenant = lookup.request.tenant
        try:
            return await self._answer("grey", tenant, CHAT_PATH, payload, Priority.INTERACTIVE, _GREY_ZONE_SECONDS)
        except (GatewayError, TimeoutError) as error:
            # the cache is optional: the request runs as if nobody had asked
            log.warning("the grey zone was not resolved: %s", error)
            return None

    async def _answer(
        self, kind: str, tenant: str, path: str, payload: dict[str, Any], priority: Priority, seconds: float
    ) -> dict[str, Any] | None:
        now = self._clock()
        call = Call(
            request_id=f"{kind}-{uuid.uuid4().hex}",
            tenant=tenant,
            path=path,
            payload=payload,
            received_seconds=now,
            deadline_seconds=now + seconds,
            priority=priority,
        )
        cap = self._runs.cap_of(call.model)
        if cap.waiting or cap.running >= cap.cap:
            return None
        async with asyncio.timeout(seconds), self._runs.run(call) as (answer, _):
            return parsed_answer(b"".join([frame async for frame in answer.frames]))
