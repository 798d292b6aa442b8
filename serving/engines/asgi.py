"""Call an ASGI application in the same process and take its answer frame by frame."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from serving.asgi_scope import post_scope

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_FRAMES_AHEAD = 256
"""Frames the application may be ahead of a slow reader before it is made to wait."""


_LEAVE_SECONDS = 2.0
"""Time an application has to leave after its client has gone, before its task is cancelled."""


@dataclass(slots=True)
class AsgiAnswer:
    status: int
    content_type: str
    frames: AsyncIterator[bytes]
    begin: Callable[[], Awaitable[bytes | None]]
    """Wait for the first frame, which stays the first of ``frames``; None where there is none."""


@contextlib.asynccontextmanager
async def asgi_call(
    app: AsgiApp, path: str, body: bytes, *, request_id: str, on_start: Callable[[], None] = lambda: None
) -> AsyncIterator[AsgiAnswer]:
    """POST ``body`` to ``path`` of ``app``. Leaving the context disconnects the client and cancels the call.

    Raises whatever the application raises before it has started to answer.
    """
    headers = {"host": "engine", "content-length": str(len(body)), "x-request-id": request_id}
    scope = post_scope(path, headers) | {"client": ("127.0.0.1", 0), "server": ("engine", 80)}
    gone = asyncio.Event()
    started: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=_FRAMES_AHEAD)
    body_sent = False

    async def receive() -> Message:
        nonlocal body_sent
        if not body_sent:
            body_sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", ()))
            if started.done():
                return
            started.set_result((message["status"], headers.get(b"content-type", b"").decode("latin-1")))
            return
        if message.get("body") and not gone.is_set():
            if queue.full():
                await queue.put(message["body"])
            else:
                queue.put_nowait(message["body"])

    async def run() -> None:
        try:
            on_start()
            await app(scope, receive, send)
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            if not started.done():
                started.set_exception(RuntimeError("the application ended without an answer"))
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(None)

    task = asyncio.create_task(run())

    waited_for: list[bytes | None] = []

    async def take() -> bytes | None:
        # once the application has ended nothing more will come, even if the end mark did not fit
        return None if queue.empty() and task.done() else await queue.get()

    async def begin() -> bytes | None:
        if not waited_for:
            waited_for.append(await take())
        return waited_for[0]

    async def frames() -> AsyncIterator[bytes]:
        frame = waited_for.pop() if waited_for else await take()
        while frame is not None:
            yield frame
            frame = await take()
        await task

    try:
        status, content_type = await started
        yield AsgiAnswer(status, content_type, frames(), begin)
    finally:
        gone.set()
        while not queue.empty():
            queue.get_nowait()
        await _end(task)
        if not started.done():
            started.cancel()
        elif not started.cancelled():
            started.exception()


async def _end(task: asyncio.Task[None]) -> None:
    # A disconnect first: applications start tasks of their own, which a bare cancel would leave running
    if not task.done():
        await asyncio.wait({task}, timeout=_LEAVE_SECONDS)
    if not task.done():
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
