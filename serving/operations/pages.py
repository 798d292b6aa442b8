"""The operators' endpoints: metrics targets, events, decisions, grid intensity, receipts, and the console."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import httpx
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.console.page import console_routes
from serving.errors import EngineUnavailable, InvalidRequest
from serving.operations.cluster_records import ClusterRecords, NodesAsked
from serving.operations.cluster_view import ClusterView
from serving.operations.decisions import DecisionLog
from serving.operations.events import EventLog

_MOST_RECEIPTS = 200
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


class OperationsPages:
    """``authorize`` raises where the request's key may not see figures; ``targets`` are this cluster's exporters,
    by default the address that was asked. ``reader`` tells whose receipts the key in an authorization header opens:
    a tenant's, or everybody's (None). ``nodes`` asks a cluster's nodes for what they record; on a single machine
    ``events``, ``decisions`` and ``recent`` are all there is."""

    def __init__(
        self,
        authorize: Callable[[Request], None],
        events: EventLog | None = None,
        decisions: DecisionLog | None = None,
        targets: Callable[[], list[str]] | None = None,
        intensity: Callable[[], Awaitable[dict[str, Any]]] | None = None,
        scrape: Callable[[], tuple[bytes, str]] | None = None,
        recent: Callable[[str | None], Awaitable[list[dict[str, Any]]]] | None = None,
        reader: Callable[[str | None], str | None] = lambda _: None,
        nodes: NodesAsked | None = None,
    ) -> None:
        self._authorize = authorize
        self._events = events
        self._decisions = decisions
        self._targets = targets
        self._intensity = intensity
        self._scrape = scrape
        self._recent = recent
        self._reader = reader
        self._nodes = nodes
        self._view: ClusterView | None = None

    async def targets(self, request: Request) -> Response:
        """Prometheus HTTP service discovery: https://prometheus.io/docs/prometheus/latest/http_sd/."""
        self._authorize(request)
        if self._targets is not None:
            hosts = await asyncio.to_thread(self._targets)
        else:
            host = request.headers.get("host", "")
            if not _HOST.fullmatch(host):
                raise InvalidRequest("The Host header is not an address.", param="host")
            hosts = [host]
        groups = [{"targets": [host], "labels": {"__metrics_path__": "/metrics"}} for host in hosts]
        return Response(orjson.dumps(groups), media_type="application/json")

    async def cluster(self, request: Request) -> Response:
        """The series of all nodes, for the console; on a single machine they are its own. Prometheus asks each node."""
        self._authorize(request)
        if self._targets is not None:
            self._view = self._view or ClusterView(httpx.AsyncClient())
            hosts = await asyncio.to_thread(self._targets)
            body = (await self._view(hosts, request.headers.get("authorization"))).encode()
        elif self._scrape is not None:
            body, _ = await asyncio.to_thread(self._scrape)
        else:
            body = b""
        return Response(body, media_type="text/plain")

    async def events(self, request: Request) -> Response:
        """``?since=`` takes Unix seconds."""
        self._authorize(request)
        since = _since(request)
        if self._nodes is not None:
            return _cluster_list(await self._nodes("events", since))
        found = await asyncio.to_thread(self._events.read, since) if self._events is not None else []
        return _list([asdict(event) for event in found])

    async def control(self, request: Request) -> Response:
        """The controller's decisions; ``?since=`` takes Unix seconds."""
        self._authorize(request)
        since = _since(request)
        if self._nodes is not None:
            return _cluster_list(await self._nodes("decisions", since))
        return _list(await asyncio.to_thread(self._decisions.read, since) if self._decisions is not None else [])

    async def receipts(self, request: Request) -> Response:
        """The last final receipts of the asking tenant, newest first; of all for the admin. `?limit=`, at most 200."""
        tenant = self._reader(request.headers.get("authorization"))
        try:
            limit = int(request.query_params.get("limit", 20))
        except ValueError:
            raise InvalidRequest("limit must be a whole number.", param="limit") from None
        limit = max(0, limit)
        if self._nodes is not None:
            return _receipts(await self._nodes("recent", tenant), limit, whole=tenant is None)
        try:
            data = [] if self._recent is None else await self._recent(tenant)
        except Exception:
            raise EngineUnavailable("The node's meter does not answer now.", code="meter_unavailable") from None
        return _list(data[:limit])

    async def intensity(self, request: Request) -> Response:
        """The grid's figure in use, and what its source forecasts."""
        self._authorize(request)
        none: dict[str, Any] = {"object": "intensity", "now": None, "forecast": []}
        try:
            found = none if self._intensity is None else await self._intensity()
        except Exception:
            raise EngineUnavailable("The node's meter does not answer now.", code="meter_unavailable") from None
        return Response(orjson.dumps(found), media_type="application/json")

    def routes(self) -> list[Route]:
        return [
            Route("/metrics/targets", self.targets),
            Route("/metrics/cluster", self.cluster),
            Route("/v1/events", self.events),
            Route("/v1/control", self.control),
            Route("/v1/intensity", self.intensity),
            Route("/v1/receipts", self.receipts),
            *console_routes(),
        ]


def _since(request: Request) -> float:
    try:
        since = float(request.query_params.get("since", 0))
    except ValueError:
        since = math.nan
    if not math.isfinite(since):
        raise InvalidRequest("since must be a number of Unix seconds.", param="since")
    return since


def _list(data: list[dict[str, Any]], **more: object) -> Response:
    return Response(orjson.dumps({"object": "list", "data": data, **more}), media_type="application/json")


def _cluster_list(found: ClusterRecords) -> Response:
    return _list(found.records, unanswered_nodes=found.unanswered)


def _receipts(found: ClusterRecords, limit: int, *, whole: bool) -> Response:
    newest = found.records[::-1][: min(limit, _MOST_RECEIPTS)]
    if whole:
        return _list(newest, unanswered_nodes=found.unanswered)
    # addresses inside the cluster are not for tenants
    own = [{name: value for name, value in record.items() if name != "node"} for record in newest]
    return _list(own, complete=not found.unanswered)
