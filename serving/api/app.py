"""The ASGI application: routes, error envelopes, other origins."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serving.access import KeyRing
from serving.api.body import Message, Receive
from serving.api.cache_pages import CachePages
from serving.api.client_gone import Send
from serving.api.completions import Completions
from serving.api.openapi import openapi_route
from serving.api.page_requests import ERROR_CODE, PageRequests
from serving.api.pages import Pages, json_response
from serving.engines.response_events import RESPONSES
from serving.errors import (
    Forbidden,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
)
from serving.gateway import Gateway
from serving.limits.desk import Desk
from serving.limits.limiter import TenantLimiter
from serving.operations.cap_pages import CapPages, LiveCaps
from serving.operations.cluster_records import NodesAsked
from serving.operations.decisions import DecisionLog
from serving.operations.events import EventLog
from serving.operations.pages import OperationsPages
from serving.telemetry.ended import EndedSink

_TOLD_TO_PAGES = (
    "retry-after",
    "x-cache",
    "x-carbon-budget-remaining-grams",
    "x-request-id",
    *(f"x-ratelimit-{part}-{of}" for part in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
    *(
        f"x-wattgate-{name}"
        for name in ("fallback", "grams", "joules", "method", "overhead-ms", "queue-ms", "receipt", "ttft-ms")
    ),
)
"""Headers of ours that a browser shows to a page of another origin."""


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    request.scope[ERROR_CODE] = error.code
    return json_response(error.envelope(), error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kinds: dict[int, type[GatewayError]] = {404: NotFound, 405: MethodNotAllowed, 403: Forbidden}
    kind = kinds.get(error.status_code, InvalidRequest)
    message = f"{request.method} {request.url.path}: {error.detail}."
    return json_response(kind(message).envelope(), error.status_code, dict(error.headers or {}))


async def _crash(request: Request, error: Exception) -> Response:
    return json_response(GatewayError("The gateway failed on this request.", code="internal_error").envelope(), 500)


class _Front:
    """Completions past the framework: its middlewares would wrap each frame of each stream."""

    def __init__(self, endpoints: Mapping[str, ASGIApp], pages: ASGIApp) -> None:
        self._endpoints = endpoints
        self._pages = pages

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"], self._pages) if scope["type"] == "http" else self._pages
        await endpoint(scope, receive, send)


def build_app(
    gateway: Gateway,
    keys: KeyRing,
    *,
    desk: Desk | None = None,
    embeddings: Gateway | None = None,
    sinks: Sequence[EndedSink] = (),
    log_prompts: bool = False,
    cors_origins: Sequence[str] = (),
    max_body_bytes: int,
    max_concurrent_requests: int,
    request_timeout_seconds: float,
    slow_reader_seconds: float = 30.0,
    scrape: Callable[[], tuple[bytes, str]],
    events: EventLog | None = None,
    decisions: DecisionLog | None = None,
    caps: LiveCaps | None = None,
    more_routes: Sequence[Route] = (),
    targets: Callable[[], list[str]] | None = None,
    intensity: Callable[[], Awaitable[dict[str, Any]]] | None = None,
    recent: Callable[[str | None], Awaitable[list[dict[str, Any]]]] | None = None,
    nodes: NodesAsked | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ASGIApp:
    """The application over a gateway. ``scrape`` returns the exposition and its content type (it may block).

    ``log_prompts``: the sinks get each prompt's redacted text. ``embeddings``: the gateway before the embedding model,
    None where there is none.
    """
    desk = desk or Desk(gateway, TenantLimiter(None), keys.settings)

    def endpoint(gateway: Gateway, desk: Desk) -> Completions:
        return Completions(
            gateway,
            keys,
            desk=desk,
            sinks=sinks,
            log_prompts=log_prompts,
            max_body_bytes=max_body_bytes,
            max_concurrent_requests=max_concurrent_requests,
            request_timeout_seconds=request_timeout_seconds,
            slow_reader_seconds=slow_reader_seconds,
            clock=clock,
        )

    generate = ("/v1/chat/completions", "/v1/completions", RESPONSES)
    endpoints: dict[str, ASGIApp] = dict.fromkeys(generate, endpoint(gateway, desk))
    gateways = [gateway]
    if embeddings is not None:
        # an embedding has no output tokens to reserve
        desk_of_embeddings = Desk(embeddings, desk.limiter, keys.settings, assumed_output_tokens=0, finals=desk.finals)
        endpoints["/v1/embeddings"] = endpoint(embeddings, desk_of_embeddings)
        gateways.append(embeddings)
    pages = Pages(
        gateways,
        keys,
        desk.limiter,
        scrape,
        int(time.time()),
        request_timeout_seconds=request_timeout_seconds,
    )
    pages_app = Starlette(
        routes=[
            *pages.routes(),
            openapi_route(),
            *CachePages(gateway, keys, events).routes(),
            *OperationsPages(
                pages.see_figures, events, decisions, targets, intensity, scrape, recent, keys.reader, nodes
            ).routes(),
            *CapPages(keys, caps, request_timeout_seconds=request_timeout_seconds).routes(),
            *more_routes,
        ],
        exception_handlers={GatewayError: _gateway_error, HTTPException: _http_error, Exception: _crash},
    )
    app = _Front(endpoints, PageRequests(pages_app, keys, gateway.metrics, sinks, clock))
    if not cors_origins:
        return app
    # outermost, so that refusals can be read by the page too; keys travel in a header, never as credentials
    return CORSMiddleware(
        app,
        allow_origins=cors_origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=_TOLD_TO_PAGES,
        max_age=600,
    )
