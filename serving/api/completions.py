"""POST of the endpoints that a model answers: authenticated, parsed, answered, told to whoever keeps count."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import orjson

from cache.control import CacheControl
from serving.access import TENANT_INSIDE, KeyRing
from serving.accounting import UNKNOWN
from serving.api.body import (
    ClientGone,
    Message,
    Receive,
    arriving_within,
    asked_priority,
    drain,
    estimated_prompt_tokens,
    parse_body,
    read_body,
)
from serving.api.client_gone import Send, Sending, SlowReader, cancelled_when_gone
from serving.api.frames import frame_of
from serving.api.request_ids import HEADER, RequestIds, request_ids
from serving.call import Call, Reply
from serving.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    RateLimited,
)
from serving.gateway import Gateway
from serving.limits.desk import Desk
from serving.telemetry.ended import Ended, EndedSink, ended_call
from serving.telemetry.redaction import prompt_text, redacted

log = logging.getLogger("wattgate")

_JSON = (b"content-type", b"application/json")
_SSE = (b"content-type", b"text/event-stream; charset=utf-8")


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
        slow_reader_seconds: float,
        sinks: Sequence[EndedSink] = (),
        log_prompts: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._keys = keys
        self._desk = desk
        self._sinks = tuple(sinks)
        self._log_prompts = log_prompts
        self._max_body_bytes = max_body_bytes
        self._max_concurrent_requests = max_concurrent_requests
        self._request_timeout_seconds = request_timeout_seconds
        self._slow_reader_seconds = slow_reader_seconds
        self._clock = clock
        self.inside = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        received = self._clock()
        headers = dict(scope["headers"])
        ids = request_ids(headers)
        request_id = ids.ours
        sending = Sending(send, self._slow_reader_seconds)
        answer = _Answer(sending, ids.shown)
        call, status, code = None, 200, None
        self._count_inside(scope["path"], 1)
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['path']} takes POST.", headers={"allow": "POST"})
            call = await self._call(scope, headers, receive, request_id, received)
            with cancelled_when_gone(receive), sending.cut():
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
            status, code = 499, "slow_reader" if isinstance(gone, SlowReader) else "client_gone"
            if isinstance(gone, asyncio.CancelledError):
                raise
            log.info("request %s: the client %s", request_id, "went" if code == "client_gone" else "read nothing")
        except Exception:
            status, code = 500, "internal_error"
            log.exception("request %s failed", request_id)
            await answer.fail(GatewayError("The gateway failed on this request.", code="internal_error"))
        finally:
            self._count_inside(scope["path"], -1)
            if self._sinks:
                self._tell(call, ids, scope["path"], status, code, received, headers)

    def _count_inside(self, path: str, requests: int) -> None:
        self.inside += requests
        self._gateway.metrics.add("wattgate_inflight_requests", requests, path.removeprefix("/v1/"))

    def _tell(
        self,
        call: Call | None,
        ids: RequestIds,
        path: str,
        status: int,
        error: str | None,
        received: float,
        headers: dict[bytes, bytes],
    ) -> None:
        now, wall = self._clock(), time.time()
        if call is None:
            seconds = now - received
            ended = Ended(ids.ours, path, status, error, wall - seconds, seconds)
        else:
            ended = ended_call(call, self._gateway, status=status, error=error, now=now, wall=wall)
            if self._log_prompts:
                ended = replace(ended, prompt=redacted(prompt_text(call.payload)))
        ended = replace(
            ended,
            client_request_id=ids.client,
            parent=_text(headers.get(b"traceparent")),
            parent_state=_text(headers.get(b"tracestate")),
        )
        for sink in self._sinks:
            sink.ended(ended)

    def _let_in(self, scope: Message, headers: dict[bytes, bytes]) -> str:
        """Whose request it is; decided before any of its body is kept."""
        tenant: str = scope.get(TENANT_INSIDE) or self._keys.tenant(_text(headers.get(b"authorization")))
        if self.inside > self._max_concurrent_requests:
            self._gateway.metrics.add("wattgate_admission_refusals_total", 1, UNKNOWN, UNKNOWN, "too_many_requests")
            raise RateLimited(
                "The gateway is at its limit of concurrent requests.",
                code="too_many_requests",
                headers={"retry-after": str(self._gateway.runs.retry_after_seconds())},
            )
        return tenant

    async def _call(
        self, scope: Message, headers: dict[bytes, bytes], receive: Receive, request_id: str, received: float
    ) -> Call:
        async with arriving_within(self._request_timeout_seconds):
            try:
                tenant = self._let_in(scope, headers)
            except GatewayError:
                await drain(receive)
                raise
            body = await read_body(receive, self._max_body_bytes)
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

    def __init__(self, sending: Sending, request_id: str) -> None:
        self._send = sending
        self._request_id = request_id
        self._started = False
        self._ended = False
        self._stream = False

    async def _start(self, status: int, content_type: tuple[bytes, bytes], headers: dict[str, str]) -> None:
        self._started = True
        raw = [content_type, (HEADER, self._request_id.encode())]
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
        with contextlib.suppress(SlowReader), self._send.cut():
            await self._fail(error)

    async def _fail(self, error: GatewayError) -> None:
        if self._started:
            # too late for a status: a last frame, and no [DONE], tells a stream's reader
            await self._body(frame_of(error.envelope()) if self._stream else b"", more=False)
            return
        body = orjson.dumps(error.envelope())
        await self._start(error.status, _JSON, error.headers | {"content-length": str(len(body))})
        await self._body(body, more=False)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


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
