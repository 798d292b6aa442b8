"""The application of an engine in a replica of its own: only the gateway asks it, with the run's internal token.

Admission, cache, limits and the requests' counts are the gateway's; here the work is done, booked, and told in a
receipt with the answer's last bytes.
"""

from __future__ import annotations

import hmac
import logging
from typing import Any, Literal

import orjson
from pydantic import SecretStr

from serving.api.body import BODIES, ClientGone, Message, Receive, read_body
from serving.api.client_gone import cancelled_when_gone
from serving.api.frames import DONE, frame_of
from serving.engines.base import Engine, EngineModel, EngineRequest
from serving.engines.response_events import is_last
from serving.engines.separate import TENANT_HEADER, receipt_frame, with_receipt
from serving.engines.upstream_models import told_of
from serving.errors import EngineUnavailable, GatewayError, InvalidRequest, NotFound
from serving.meter_link import MeterLink, Trace

log = logging.getLogger("wattgate")

_JSON = (b"content-type", b"application/json")
_SSE = (b"content-type", b"text/event-stream; charset=utf-8")


class EngineApp:
    """``GET /v1/models``, ``GET /readyz`` and POST of completions over one engine.

    ``cache_verdict``: the books' word on the gateway's cache, of requests that it had no answer for.
    """

    def __init__(
        self,
        engine: Engine,
        meter: MeterLink,
        token: SecretStr,
        *,
        max_body_bytes: int,
        cache_verdict: Literal["MISS", "BYPASS"] = "MISS",
    ) -> None:
        self._engine = engine
        self._meter = meter
        self._token = f"Bearer {token.get_secret_value()}".encode()
        self._max_body_bytes = max_body_bytes
        self._verdict = cache_verdict

    async def __call__(self, scope: Message, receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            return
        answer = _Answer(send)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        headers = dict(scope["headers"])
        try:
            if not hmac.compare_digest(headers.get(b"authorization", b""), self._token):
                # to anybody else there is nothing here
                raise NotFound(f"{scope['method']} {scope['path']}: Not Found.")
            if path in BODIES and scope["method"] == "POST":
                await self._complete(path, headers, receive, answer)
            elif path == "/v1/models":
                await answer.json(200, {"object": "list", "data": [self._model(m) for m in self._engine.models()]})
            elif path == "/readyz":
                self._check_ready()
                await answer.json(200, {"status": "ready"})
            else:
                raise NotFound(f"{scope['method']} {scope['path']}: Not Found.")
        except GatewayError as error:
            await answer.fail(error)
        except ClientGone:
            log.info("an internal request was given up")
        except Exception:
            log.exception("an internal request failed")
            await answer.fail(GatewayError("The engine failed to answer.", code="engine_error"))

    def _check_ready(self) -> None:
        status = self._engine.status()
        if not status.ready:
            raise EngineUnavailable(f"Not ready: {status.reason}.")

    def _model(self, model: EngineModel) -> dict[str, Any]:
        # a list without models says that the engine is away
        self._check_ready()
        return {
            "id": model.name,
            "object": "model",
            "max_model_len": model.max_context_tokens,
            "parent": model.parent,
            "wattgate": told_of(model),
        }

    async def _complete(self, path: str, headers: dict[bytes, bytes], receive: Receive, answer: _Answer) -> None:
        body = await read_body(receive, self._max_body_bytes)
        try:
            payload = orjson.loads(body)
            request = EngineRequest(
                request_id=headers[b"x-request-id"].decode("ascii"),
                path=path,
                payload=payload,
                model=payload["model"],
                tenant=headers[TENANT_HEADER.encode()].decode("latin-1"),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
            raise InvalidRequest("Not a request of the gateway's.") from None
        trace = self._meter.trace(request.request_id, request.tenant, request.model)
        try:
            with cancelled_when_gone(receive):
                async with self._engine.run(request, trace.record) as told:
                    if request.stream:
                        await self._stream(told.frames, trace, answer)
                    else:
                        whole = b"".join([frame async for frame in told.frames])
                        await answer.whole(200, with_receipt(whole, self._meter.provisional(trace, self._verdict)))
        finally:
            self._meter.finished(request.request_id, self._verdict)

    async def _stream(self, frames: Any, trace: Trace, answer: _Answer) -> None:
        async for frame in frames:
            if frame == DONE or is_last(frame):
                frame = receipt_frame(self._meter.provisional(trace, self._verdict)) + frame
            await answer.frame(frame)
        await answer.end()


class _Answer:
    """What has gone so far decides how an error can still be told."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._started = False
        self._ended = False

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def whole(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        more = [(name.encode(), value.encode("latin-1", "replace")) for name, value in (headers or {}).items()]
        await self._start(status, [_JSON, (b"content-length", str(len(body)).encode()), *more])
        self._ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def json(self, status: int, payload: Any, headers: dict[str, str] | None = None) -> None:
        # models' configurations have numbers for keys, and what only Python knows
        body = orjson.dumps(payload, default=str, option=orjson.OPT_NON_STR_KEYS)
        await self.whole(status, body, headers)

    async def frame(self, frame: bytes) -> None:
        if not self._started:
            await self._start(200, [_SSE])
        await self._send({"type": "http.response.body", "body": frame, "more_body": True})

    async def end(self) -> None:
        self._ended = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: GatewayError) -> None:
        if self._ended:
            return
        if not self._started:
            await self.json(error.status, error.envelope(), error.headers)
            return
        self._ended = True
        await self._send({"type": "http.response.body", "body": frame_of(error.envelope()), "more_body": False})
