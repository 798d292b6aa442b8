"""The ASGI application: routes, authentication, error envelopes, client gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from cache.control import CacheControl
from serving.access import TENANT_INSIDE, KeyRing
from serving.api.body import ClientGone, asked_priority, estimated_prompt_tokens, parse_body, read_body
from serving.api.cache_pages import CachePages
from serving.api.client_gone import cancelled_when_gone
from serving.api.frames import frame_of
from serving.api.openapi import openapi_route
from serving.api.responses import NOT_KEPT
from serving.call import Call, Reply
from serving.engines.response_events import RESPONSES
from serving.errors import (
    BodyTooLarge,
    EngineUnavailable,
    Forbidden,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    RequestTimeout,
)
from serving.gateway import Gateway
from serving.limits.desk import Desk
from serving.limits.limiter import TenantLimiter
from serving.operations.decisions import DecisionLog
from serving.operations.events import EventLog
from serving.operations.pages import OperationsPages
from serving.telemetry.ended import Ended, EndedSink, ended_call
from serving.tenancy.usage import usage_page

log = logging.getLogger("wattgate")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_JSON = (b"content-type", b"application/json")
_SSE = (b"content-type", b"text/event-stream; charset=utf-8")


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


class Completions:
    """POST of ``/v1/chat/completions`` and ``/v1/completions``: a plain ASGI endpoint."""

    def __init__(
        self,
        gateway: Gateway,
        keys: KeyRing,
        *,
        desk: Desk,
        max_body_bytes: int,
        max_concurrent_requests: int,
        request_timeout_seconds: float,
        sinks: Sequence[EndedSink] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._keys = keys
        self._desk = desk
        self._sinks = tuple(sinks)
        self._max_body_bytes = max_body_bytes
        self._max_concurrent_requests = max_concurrent_requests
        self._request_timeout_seconds = request_timeout_seconds
        self._clock = clock
        self.inside = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        received = self._clock()
        headers = dict(scope["headers"])
        request_id = uuid.uuid4().hex
        # the client's own is told and logged, but it may come twice: nothing is booked under it
        client_id = _client_id(headers.get(b"x-request-id"))
        answer = _Answer(send, client_id or request_id)
        call, status, code = None, 200, None
        self.inside += 1
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['path']} takes POST.", headers={"allow": "POST"})
            call = await self._call(scope, headers, receive, request_id, received)
            with cancelled_when_gone(receive):
                async with self._desk.open(call) as reply:
                    await answer.send_reply(reply, stream=call.stream)
            # a stream that broke off has told its client so in its last frame
            code = None if call.usage is not None else "broken_stream"
        except GatewayError as error:
            status, code = error.status, error.code
            if call is None:
                self._gateway.refused(scope["path"], error.status)
            await answer.fail(error)
        except (ClientGone, asyncio.CancelledError) as gone:
            status, code = 499, "client_gone"
            if isinstance(gone, asyncio.CancelledError):
                raise
            log.info("request %s: the client went", request_id)
        except Exception:
            status, code = 500, "internal_error"
            log.exception("request %s failed", request_id)
            await answer.fail(GatewayError("The gateway failed on this request.", code="internal_error"))
        finally:
            self.inside -= 1
            if self._sinks:
                self._tell(call, request_id, client_id, scope["path"], status, code, received, headers)

    def _tell(
        self,
        call: Call | None,
        request_id: str,
        client_id: str | None,
        path: str,
        status: int,
        error: str | None,
        received: float,
        headers: dict[bytes, bytes],
    ) -> None:
        now, wall, parent = self._clock(), time.time(), _text(headers.get(b"traceparent"))
        if call is None:
            seconds = now - received
            ended = Ended(request_id, path, status, error, wall - seconds, seconds, parent=parent)
        else:
            ended = ended_call(call, self._gateway, status=status, error=error, now=now, wall=wall, parent=parent)
        if client_id is not None:
            ended = replace(ended, client_request_id=client_id)
        for sink in self._sinks:
            sink.ended(ended)

    async def _call(
        self, scope: Message, headers: dict[bytes, bytes], receive: Receive, request_id: str, received: float
    ) -> Call:
        # refusals come after the body has been read: a client that is still sending could not read them
        try:
            async with asyncio.timeout(self._request_timeout_seconds):
                body = await read_body(receive, self._max_body_bytes)
        except TimeoutError:
            raise RequestTimeout("The request body did not arrive in time.") from None
        tenant = scope.get(TENANT_INSIDE) or self._keys.tenant(_text(headers.get(b"authorization")))
        if self.inside > self._max_concurrent_requests:
            raise RateLimited(
                "The gateway is at its limit of concurrent requests.",
                code="too_many_requests",
                headers={"retry-after": str(self._gateway.runs.retry_after_seconds())},
            )
        payload = parse_body(scope["path"], body)
        self._keys.check_model(tenant, payload["model"])
        timeout = _timeout(headers.get(b"x-request-timeout"), self._request_timeout_seconds)
        return Call(
            request_id=request_id,
            tenant=tenant,
            path=scope["path"],
            payload=payload,
            received_seconds=received,
            deadline_seconds=received + timeout,
            cache_control=CacheControl.parse(_text(headers.get(b"cache-control"))),
            priority=asked_priority(
                _text(headers.get(b"x-wattgate-priority")), payload, self._keys.settings(tenant).priority
            ),
            prompt_tokens=estimated_prompt_tokens(payload),
        )


class _Answer:
    """What has gone to the client so far decides how an error can still be told."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self._started = False
        self._ended = False
        self._stream = False

    async def _start(self, status: int, content_type: tuple[bytes, bytes], headers: dict[str, str]) -> None:
        self._started = True
        raw = [content_type, (b"x-request-id", self._request_id.encode())]
        raw += [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _body(self, body: bytes, more: bool) -> None:
        self._ended = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def send_reply(self, reply: Reply, *, stream: bool) -> None:
        self._stream = stream
        if not stream:
            body = b"".join([frame async for frame in reply.frames])
            await self._start(200, _JSON, reply.headers | {"content-length": str(len(body))})
            await self._body(body, more=False)
            return
        async for frame in reply.frames:
            if not self._started:
                await self._start(200, _SSE, reply.headers | {"cache-control": "no-store"})
            await self._body(frame, more=True)
        await self._body(b"", more=False)

    async def fail(self, error: GatewayError) -> None:
        if self._ended:
            return
        if self._started:
            # too late for a status: a last frame, and no [DONE], tells a stream's reader
            await self._body(frame_of(error.envelope()) if self._stream else b"", more=False)
            return
        body = orjson.dumps(error.envelope())
        await self._start(error.status, _JSON, error.headers | {"content-length": str(len(body))})
        await self._body(body, more=False)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _client_id(sent: bytes | None) -> str | None:
    """The client's own id where it is harmless."""
    text = _text(sent)
    return text if text and _REQUEST_ID.fullmatch(text) else None


def _timeout(sent: bytes | None, most: float) -> float:
    if sent is None:
        return most
    try:
        seconds = float(sent)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InvalidRequest("x-request-timeout must be a positive number of seconds.", param="x-request-timeout")
    return min(seconds, most)


class _Pages:
    """The small GET endpoints."""

    def __init__(
        self,
        gateways: Sequence[Gateway],
        keys: KeyRing,
        limiter: TenantLimiter,
        scrape: Callable[[], tuple[bytes, str]],
        started: int,
    ) -> None:
        """``gateways``: the one whose engine decides on readiness first."""
        self._gateways = tuple(gateways)
        self._gateway = self._gateways[0]
        self._limiter = limiter
        self._keys = keys
        self._scrape = scrape
        self._started = started

    def _tenant(self, request: Request) -> str:
        return self._keys.tenant(request.headers.get("authorization"))

    async def healthz(self, request: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        status = self._gateway.engine.status()
        if not status.ready:
            raise EngineUnavailable(f"Not ready: {status.reason}.")
        return _json({"status": "ready" if status.state == "awake" else status.state, "running": status.running})

    async def models(self, request: Request) -> Response:
        grants = self._keys.settings(self._tenant(request))
        data = [entry for entry in self._served() if grants.may_use(entry["id"])]
        return _json({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        self._keys.check_model(self._tenant(request), name)
        for entry in self._served():
            if entry["id"] == name:
                return _json(entry)
        self._gateway.runs.model(name)
        raise AssertionError("a gateway's model is listed")

    def _served(self) -> list[dict[str, Any]]:
        return [
            {
                "id": model.name,
                "object": "model",
                "created": self._started,
                "owned_by": f"wattgate/{gateway.engine.kind}",
                "max_model_len": model.max_context_tokens,
                **({} if model.parent is None else {"parent": model.parent}),
            }
            for gateway in self._gateways
            for model in gateway.engine.models()
        ]

    async def no_responses(self, request: Request) -> Response:
        self._tenant(request)
        raise NotFound(f"There is no such response, because {NOT_KEPT}.", param="id", code="response_not_found")

    async def no_embeddings(self, request: Request) -> Response:
        # refused after the body has been read, like everything that has one: who still sends could not read it
        with contextlib.suppress(BodyTooLarge, ClientGone):
            await read_body(request.receive, 0)
        self._tenant(request)
        raise NotFound("This gateway serves no embeddings: embeddings.enabled is off.", code="embeddings_off")

    async def receipt(self, request: Request) -> Response:
        tenant = self._tenant(request)
        receipt_id = request.path_params["receipt_id"]
        receipt = await self._gateway.meter.receipt(tenant, receipt_id)
        if receipt is None:
            raise NotFound(
                f"No final receipt '{receipt_id}': not settled yet (a few seconds), too old, or not yours.",
                param="receipt_id",
                code="receipt_not_found",
            )
        return _json(receipt.as_dict())

    def see_figures(self, request: Request) -> None:
        """Raises where the request's key may not see the node's figures."""
        self._keys.see_figures(request.headers.get("authorization"))

    async def usage(self, request: Request) -> Response:
        """The tenant's own; the admin's key opens any tenant's (`?tenant=`)."""
        if self._keys.is_admin(request.headers.get("authorization")):
            tenant = request.query_params.get("tenant")
            if tenant is None:
                raise InvalidRequest("Name the tenant: /v1/usage?tenant=...", param="tenant")
        else:
            tenant = self._tenant(request)
        day, month, scope = await self._limiter.usage(tenant)
        limits, method = self._keys.settings(tenant).limits, self._gateway.engine.method.value
        return _json(usage_page(tenant, day, month, limits, scope, method, time.time()))

    async def metrics(self, request: Request) -> Response:
        self.see_figures(request)
        body, content_type = await asyncio.to_thread(self._scrape)
        return Response(body, media_type=None, headers={"content-type": content_type})


def _json(payload: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(payload), status, headers, media_type="application/json")


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return _json(error.envelope(), error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kinds: dict[int, type[GatewayError]] = {404: NotFound, 405: MethodNotAllowed, 403: Forbidden}
    kind = kinds.get(error.status_code, InvalidRequest)
    message = f"{request.method} {request.url.path}: {error.detail}."
    return _json(kind(message).envelope(), error.status_code, dict(error.headers or {}))


async def _crash(request: Request, error: Exception) -> Response:
    return _json(GatewayError("The gateway failed on this request.", code="internal_error").envelope(), 500)


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
    cors_origins: Sequence[str] = (),
    max_body_bytes: int,
    max_concurrent_requests: int,
    request_timeout_seconds: float,
    scrape: Callable[[], tuple[bytes, str]],
    events: EventLog | None = None,
    decisions: DecisionLog | None = None,
    more_routes: Sequence[Route] = (),
    targets: Callable[[], list[str]] | None = None,
    intensity: Callable[[], Awaitable[dict[str, Any]]] | None = None,
    recent: Callable[[str | None], Awaitable[list[dict[str, Any]]]] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ASGIApp:
    """The application over a gateway. ``scrape`` returns the exposition and its content type (it may block).

    ``embeddings``: the gateway before the embedding model, None where there is none.
    """
    desk = desk or Desk(gateway, TenantLimiter(None), keys.settings)

    def endpoint(gateway: Gateway, desk: Desk) -> Completions:
        return Completions(
            gateway,
            keys,
            desk=desk,
            sinks=sinks,
            max_body_bytes=max_body_bytes,
            max_concurrent_requests=max_concurrent_requests,
            request_timeout_seconds=request_timeout_seconds,
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
    pages = _Pages(gateways, keys, desk.limiter, scrape, int(time.time()))
    pages_app = Starlette(
        routes=[
            Route("/v1/embeddings", pages.no_embeddings, methods=["POST"]),
            Route("/v1/responses/{response_id}", pages.no_responses, methods=["GET", "DELETE"]),
            Route("/v1/responses/{response_id}/{of}", pages.no_responses, methods=["GET", "POST"]),
            Route("/v1/models", pages.models),
            Route("/v1/models/{model:path}", pages.model),
            Route("/v1/receipts/{receipt_id}", pages.receipt),
            Route("/v1/usage", pages.usage),
            Route("/healthz", pages.healthz),
            Route("/readyz", pages.readyz),
            Route("/metrics", pages.metrics),
            openapi_route(),
            *CachePages(gateway, keys, events).routes(),
            *OperationsPages(
                pages.see_figures, events, decisions, targets, intensity, scrape, recent, keys.reader
            ).routes(),
            *more_routes,
        ],
        exception_handlers={GatewayError: _gateway_error, HTTPException: _http_error, Exception: _crash},
    )
    app = _Front(endpoints, pages_app)
    if not cors_origins:
        return app
    # outermost, so that refusals can be read by the page too; keys travel in a header, never as credentials
    return CORSMiddleware(
        app,
        allow_origins=cors_origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=_TOLD_TO_PAGES,
        max_age=600,
    )
