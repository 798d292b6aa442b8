"""The operators' endpoints: ``/metrics/targets``, ``/v1/events``, ``/v1/control`` and the console."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.console.page import console_routes
from serving.errors import InvalidRequest
from serving.operations.decisions import DecisionLog
from serving.operations.events import EventLog

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


class OperationsPages:
    """``authorize`` raises where the request's key may not see figures; ``targets`` are this cluster's exporters,
    by default the address that was asked."""

    def __init__(
        self,
        authorize: Callable[[Request], None],
        events: EventLog | None = None,
        decisions: DecisionLog | None = None,
        targets: Callable[[], list[str]] | None = None,
    ) -> None:
        self._authorize = authorize
        self._events = events
        self._decisions = decisions
        self._targets = targets

    async def targets(self, request: Request) -> Response:
        """Prometheus HTTP service discovery: https://prometheus.io/docs/prometheus/latest/http_sd/."""
        self._authorize(request)
        if self._targets is not None:
            hosts = self._targets()
        else:
            host = request.headers.get("host", "")
            if not _HOST.fullmatch(host):
                raise InvalidRequest("The Host header is not an address.", param="host")
            hosts = [host]
        groups = [{"targets": [host], "labels": {"__metrics_path__": "/metrics"}} for host in hosts]
        return Response(orjson.dumps(groups), media_type="application/json")

    async def events(self, request: Request) -> Response:
        """``?since=`` takes Unix seconds."""
        self._authorize(request)
        since = _since(request)
        found = await asyncio.to_thread(self._events.read, since) if self._events is not None else []
        return _list([asdict(event) for event in found])

    async def control(self, request: Request) -> Response:
        """The controller's decisions; ``?since=`` takes Unix seconds."""
        self._authorize(request)
        since = _since(request)
        return _list(await asyncio.to_thread(self._decisions.read, since) if self._decisions is not None else [])

    def routes(self) -> list[Route]:
        return [
            Route("/metrics/targets", self.targets),
            Route("/v1/events", self.events),
            Route("/v1/control", self.control),
            *console_routes(),
        ]


def _since(request: Request) -> float:
    try:
        return float(request.query_params.get("since", 0))
    except ValueError:
        raise InvalidRequest("since must be a number of Unix seconds.", param="since") from None


def _list(data: list[dict[str, Any]]) -> Response:
    return Response(orjson.dumps({"object": "list", "data": data}), media_type="application/json")
