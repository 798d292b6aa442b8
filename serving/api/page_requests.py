"""Requests to the pages, which no model answers: an id in and out, a count, and a line for what changes or fails."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Match, Route

from serving.access import KeyRing
from serving.api.body import Receive
from serving.api.request_ids import HEADER, RequestIds, request_ids
from serving.errors import GatewayError
from serving.metrics import Metrics
from serving.telemetry.ended import Ended, EndedSink

ERROR_CODE = "wattgate.error_code"
"""In the scope of a request that was refused: our code for it."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _READING | {"POST", "PUT", "DELETE"}
_UNKNOWN = "unknown"


class PageRequests:
    """Around the application of the pages. Its counts and lines have routes for paths, never a client's text."""

    def __init__(
        self,
        app: Starlette,
        keys: KeyRing,
        metrics: Metrics,
        sinks: Sequence[EndedSink] = (),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._routes = tuple(route for route in app.routes if isinstance(route, Route))
        self._keys = keys
        self._metrics = metrics
        self._sinks = tuple(sinks)
        self._clock = clock
        self._wall = wall

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received, status = self._clock(), 499
        headers = dict(scope["headers"])
        ids = request_ids(headers)

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (HEADER, ids.shown.encode())]}
            await send(message)

        route, method, path = self._route(scope), scope["method"], scope["path"]
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            method = method if method in _METHODS else "other"
            endpoint = route.removeprefix("/v1").lstrip("/")
            self._metrics.add("wattgate_page_requests_total", 1, endpoint, method, str(status))
            if method not in _READING or status >= 400:
                # what was there to be changed has ids of ours in its path; what was not, a client's text
                told = path if status < 400 else route
                self._tell(ids, told, route, method, status, scope.get(ERROR_CODE), received, headers)

    def _route(self, scope: MutableMapping[str, Any]) -> str:
        partial = _UNKNOWN
        for route in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return route.path
            if match is Match.PARTIAL and partial == _UNKNOWN:
                partial = route.path
        return partial

    def _tell(
        self,
        ids: RequestIds,
        path: str,
        route: str,
        method: str,
        status: int,
        error: str | None,
        received: float,
        headers: dict[bytes, bytes],
    ) -> None:
        seconds = self._clock() - received
        ended = Ended(
            ids.ours,
            path,
            status,
            error,
            self._wall() - seconds,
            seconds,
            tenant=self._tenant(headers.get(b"authorization")),
            client_request_id=ids.client,
            page=route,
            method=method,
            parent=_text(headers.get(b"traceparent")),
            parent_state=_text(headers.get(b"tracestate")),
        )
        for sink in self._sinks:
            sink.ended(ended)

    def _tenant(self, authorization: bytes | None) -> str | None:
        """None for whoever has no key of a tenant: the admin, and a stranger."""
        try:
            return self._keys.tenant(_text(authorization))
        except GatewayError:
            return None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
