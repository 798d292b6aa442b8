"""Any OpenAI-compatible server behind the engine seam: pooled HTTP, bytes relayed as they come.

Its work is modelled from usage and timing. The upstream tells nothing of its steps, so none are reported and
the meter estimates how far requests shared them. An upstream that is away is never fatal: a background
probe sees it come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from metering.work import Method
from serving.engines.base import (
    EngineAnswer,
    EngineModel,
    EngineRequest,
    EngineStartError,
    EngineStatus,
    StepSink,
    WorkSink,
)
from serving.engines.response_events import RESPONSES, is_last, named
from serving.engines.settings import EngineSettings
from serving.engines.sse import DONE, EventTooLong, SseSplitter
from serving.engines.upstream_models import Away, Listed, base_url, cause, choose_models, list_models, model_config
from serving.engines.usage_work import Habits, UsageWork
from serving.errors import EngineRefused, EngineUnavailable, GatewayError, RateLimited

log = logging.getLogger("wattgate")

PROBE_SECONDS = 2.0
"""Between two looks at a quiet upstream; a failed request looks at once."""
_TOLERATED_TIMEOUTS = 1
"""Probes that may time out in a row: a slow upstream is not one that is gone."""
_STALE_SECONDS = 1.0
"""A connection that was being closed shows it within a round trip; one that is lost later had carried the request."""
_KEEP_ALIVE_SECONDS = 4.0
"""Idle connections are dropped before uvicorn drops them (5 s), so that no request meets a closing one."""
_LAST_BYTES_SECONDS = 0.25
"""For the end of the body after ``[DONE]``, so that the connection can be used again."""
_LONGEST_ERROR_BYTES = 64 * 1024
_LONGEST_MESSAGE = 2000
_MODEL = re.compile(rb'"model":\s*"(?:[^"\\]|\\.)*"')


class UpstreamEngine:
    """See ``Engine``.

    Args:
        headers: further ones of a request.
        expected: models that are here whether or not the upstream is. None: an upstream that is away ends the
            start; else it is waited for.
        probe_seconds: between two health probes.
    """

    kind = "upstream"
    method = Method.MODELLED

    def __init__(
        self,
        settings: EngineSettings,
        steps: StepSink,
        *,
        headers: Callable[[EngineRequest], Mapping[str, str]] = lambda _: {},
        expected: Sequence[str] | None = None,
        probe_seconds: float = PROBE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._headers = headers
        self._waits = expected is not None
        self._expected = tuple(expected or ())
        self._config: dict[str, Any] | None = None
        self._base = base_url(settings.upstream.url)
        self._probe_seconds = probe_seconds
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._models = tuple(EngineModel(name) for name in self._expected)
        self._names: dict[str, str] = {}
        """Served name to the upstream's own."""
        self._reason = "not started"
        self._running = 0
        self._open: set[UsageWork] = set()
        self._timeouts = 0
        self._habits = Habits()
        self._look_now = asyncio.Event()
        self._probing: asyncio.Task[None] | None = None

    # Life.

    async def start(self) -> None:
        self._config = model_config(self._settings.upstream.model_config_path)
        if urlsplit(self._base).scheme not in ("http", "https") or not urlsplit(self._base).hostname:
            raise EngineStartError(
                f"engine.upstream.url {self._settings.upstream.url!r} is not an address: write it as http://host:port"
            )
        upstream = self._settings.upstream
        headers = {"accept-encoding": "identity"}
        if upstream.api_key:
            headers["authorization"] = f"Bearer {upstream.api_key.get_secret_value()}"
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=upstream.max_connections, keepalive_timeout=_KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=upstream.connect_timeout_seconds, sock_read=upstream.read_timeout_seconds
            ),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        reason = ""
        try:
            self._choose(await list_models(session, self._base))
        except BaseException as error:
            if isinstance(error, Away) and self._waits:
                reason = f"the upstream {error}"
                log.warning("the upstream %s %s", self._base, error)
            else:
                await session.close()
                if isinstance(error, Away):
                    raise EngineStartError(f"the upstream {self._base} {error}") from None
                raise
        self._session = session
        self._reason = reason
        self._probing = asyncio.create_task(self._probe_for_ever(), name="upstream-probe")

    def _choose(self, listed: Mapping[str, Listed]) -> None:
        names, models = choose_models(self._settings, listed, self._config)
        missing = [name for name in self._expected if name not in names]
        if missing:
            raise Away(f"does not serve {', '.join(missing)}; it serves {', '.join(listed)}")
        self._names, self._models = names, models

    def flush(self) -> float | None:
        # its runs book what they know as they go; what an upstream does with a prompt is told when its answer ends
        now = self._clock()
        starts = [usage.pending_seconds(now) for usage in self._open]
        return min((start for start in starts if start is not None), default=None)

    async def close(self) -> None:
        probing, self._probing = self._probing, None
        session, self._session = self._session, None
        self._reason = "closed"
        if probing is not None:
            probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await probing
        if session is not None:
            await session.close()

    def models(self) -> tuple[EngineModel, ...]:
        return self._models

    def status(self) -> EngineStatus:
        return EngineStatus(ready=not self._reason, reason=self._reason, running=self._running)

    # Health.

    async def probe(self) -> EngineStatus:
        """Look at the upstream now."""
        session = self._session
        if session is None:
            return self.status()
        try:
            listed = await list_models(session, self._base)
            if not self._names:
                self._choose(listed)
            gone = set(self._names.values()) - set(listed)
            if gone == set(self._names.values()):
                raise Away(f"no longer serves {', '.join(sorted(gone))}")
        except Away as away:
            self._timeouts = self._timeouts + 1 if away.slow else _TOLERATED_TIMEOUTS + 1
            if self._session is session and self._timeouts > _TOLERATED_TIMEOUTS:
                if not self._reason:
                    log.warning("the upstream %s %s", self._base, away)
                self._reason = f"the upstream {away}"
        else:
            self._timeouts = 0
            if self._session is session:
                if self._reason:
                    log.warning("the upstream %s is back", self._base)
                self._reason = ""
        return self.status()

    async def _probe_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._probe_seconds):
                    await self._look_now.wait()
            self._look_now.clear()
            try:
                await self.probe()
            except Exception:
                log.exception("the upstream's health probe failed")

    # Requests.

    @contextlib.asynccontextmanager
    async def run(self, request: EngineRequest, work: WorkSink) -> AsyncIterator[EngineAnswer]:
        session = self._session
        if session is None or self._reason:
            raise EngineUnavailable("The engine cannot answer now: its upstream is away.")
        own = self._names.get(request.model, request.model)
        payload = request.payload if request.payload.get("model") == own else request.payload | {"model": own}
        body = orjson.dumps(payload)
        told = b'"model":' + orjson.dumps(request.model) if own != request.model else None
        usage = UsageWork(request, work, self._habits, self._clock)
        sent = False
        response: aiohttp.ClientResponse | None = None
        self._running += 1
        self._open.add(usage)
        try:
            response = await self._send(session, request, body)
            if response.status != 200:
                raise await self._refusal(response)
            sent = True
            if request.stream:
                frames = self._stream(response, usage, told, events=request.path == RESPONSES)
            else:
                frames = self._unary(response, usage, told)
            async with contextlib.aclosing(frames):
                yield EngineAnswer(frames, first_token_seconds=lambda: usage.first_token_seconds)
        except asyncio.CancelledError:
            sent = True
            raise
        finally:
            self._running -= 1
            self._open.discard(usage)
            if response is not None:
                # an answer read to its end has given its connection back already; any other is cut off
                response.close()
            if sent:
                usage.close()

    async def _send(
        self, session: aiohttp.ClientSession, request: EngineRequest, body: bytes
    ) -> aiohttp.ClientResponse:
        headers = {"content-type": "application/json", "x-request-id": request.request_id, **self._headers(request)}

        async def send() -> aiohttp.ClientResponse:
            return await session.post(self._base + request.path, data=body, headers=headers, allow_redirects=False)

        began = self._clock()
        try:
            try:
                return await send()
            except aiohttp.ServerDisconnectedError:
                if self._clock() - began > _STALE_SECONDS:
                    # it had the request, and may have worked on it
                    raise
                # a pooled connection that the upstream was just closing; a new one tells whether it is there
                return await send()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._look_now.set()
            log.warning("request %s: the upstream %s: %s", request.request_id, self._base, cause(error))
            raise EngineUnavailable("The engine's upstream could not be reached.") from None

    async def _refusal(self, response: aiohttp.ClientResponse) -> GatewayError:
        status = response.status
        try:
            raw = await response.content.read(_LONGEST_ERROR_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError):
            raw = b""
        if not 400 <= status < 500 or status in (401, 403, 407):
            # the gateway's own key, a proxy's page, a stack trace: nothing of it is about the client's request, and its
            # text may repeat that key or the prompt, which no log of ours shall have
            error = _sanitised(raw)
            kind = error.get("code") or error.get("type") or "without an error of OpenAI's form"
            log.warning("the upstream %s answered %d, %s", self._base, status, kind)
            self._look_now.set()
            return EngineUnavailable("The engine's upstream failed to answer.", code="engine_error")
        if status == 429:
            after = response.headers.get("retry-after", "")
            return RateLimited(
                "The engine's upstream is at its limit.",
                code="engine_overloaded",
                headers={"retry-after": after if after.isascii() and after.isdigit() else "1"},
            )
        return EngineRefused(status, {"error": _sanitised(raw)})

    async def _unary(
        self, response: aiohttp.ClientResponse, usage: UsageWork, told: bytes | None
    ) -> AsyncGenerator[bytes, None]:
        try:
            body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._broken(error) from None
        usage.body(body)
        yield body if told is None else _MODEL.sub(lambda _: told, body, count=1)

    async def _stream(
        self, response: aiohttp.ClientResponse, usage: UsageWork, told: bytes | None, *, events: bool
    ) -> AsyncGenerator[bytes, None]:
        """``events``: those of the Responses API, which ends without ``[DONE]``."""
        splitter, ended = SseSplitter(), False
        chunks = response.content.iter_any()
        try:
            while not ended:
                try:
                    chunk = await anext(chunks)
                except StopAsyncIteration:
                    frames = splitter.end()
                    if not frames:
                        raise self._broken("it ended without [DONE]") from None
                else:
                    frames = splitter.feed(chunk)
                for frame in frames:
                    if frame == DONE:
                        ended = True
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(_LAST_BYTES_SECONDS):
                                await response.read()
                        yield frame
                        break
                    usage.frame(frame)
                    if events:
                        frame = named(frame)
                        ended = is_last(frame)
                    if frame.startswith(b'data: {"error"'):
                        ended = True
                    yield frame if told is None else _MODEL.sub(lambda _: told, frame, count=1)
        except (aiohttp.ClientError, OSError, TimeoutError, EventTooLong) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception | str) -> EngineUnavailable:
        self._look_now.set()
        log.warning("the upstream %s broke off an answer: %s", self._base, cause(error))
        return EngineUnavailable("The engine's upstream broke off its answer.", code="engine_error")


def _sanitised(raw: bytes) -> dict[str, Any]:
    """The four fields of an error envelope; of anything else nothing."""
    try:
        payload = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    error = payload.get("error", payload) if isinstance(payload, dict) else {}
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return {}
    out: dict[str, Any] = {"message": error["message"][:_LONGEST_MESSAGE]}
    for name in ("type", "param", "code"):
        if isinstance(error.get(name), str):
            out[name] = error[name][:200]
    return out
