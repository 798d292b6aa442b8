from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from serving.engines import asgi
from serving.engines.asgi import asgi_call

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def start(send: Send, status: int = 200, kind: bytes = b"text/event-stream") -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})


async def write(send: Send, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def test_the_application_gets_the_request_as_a_server_would_give_it() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.update(scope)
        seen["message"] = await receive()
        await start(send, 201, b"application/json")
        await write(send, b"{}", more=False)

    async with asgi_call(app, "/v1/x", b'{"a":1}', request_id="abc") as answer:
        assert (answer.status, answer.content_type) == (201, "application/json")
        assert [frame async for frame in answer.frames] == [b"{}"]
    assert (seen["method"], seen["path"], seen["type"]) == ("POST", "/v1/x", "http")
    assert seen["message"] == {"type": "http.request", "body": b'{"a":1}', "more_body": False}
    headers = dict(seen["headers"])
    assert headers[b"x-request-id"] == b"abc"
    assert headers[b"content-length"] == b"7"


async def test_frames_come_one_by_one_while_the_application_runs() -> None:
    gate = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await write(send, b"one")
        await gate.wait()
        await write(send, b"two")
        await write(send, b"", more=False)

    async with asgi_call(app, "/", b"", request_id="r") as answer:
        assert await anext(answer.frames) == b"one"
        gate.set()
        assert [frame async for frame in answer.frames] == [b"two"]


async def test_leaving_disconnects_the_client_so_that_the_application_can_clean_up() -> None:
    events: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await start(send)
        await write(send, b"one")
        events.append((await receive())["type"])

    async with asgi_call(app, "/", b"", request_id="r") as answer:
        await anext(answer.frames)
    assert events == ["http.disconnect"]


async def test_an_application_that_does_not_leave_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "_LEAVE_SECONDS", 0.001)
    ended: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async with asgi_call(app, "/", b"", request_id="r"):
        pass
    assert ended == ["cancelled"]


async def test_cancelling_the_caller_before_the_answer_ends_the_application() -> None:
    events: list[str] = []
    inside = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        inside.set()
        events.append((await receive())["type"])

    async def call() -> None:
        async with asgi_call(app, "/", b"", request_id="r"):
            raise AssertionError("there is no answer")

    task = asyncio.create_task(call())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["http.disconnect"]


async def test_what_the_application_raises_before_its_answer_is_raised() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        async with asgi_call(app, "/", b"", request_id="r"):
            pass


async def test_an_application_without_an_answer_is_an_error() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        return

    with pytest.raises(RuntimeError, match="without an answer"):
        async with asgi_call(app, "/", b"", request_id="r"):
            pass


async def test_what_the_application_raises_in_mid_answer_follows_its_frames() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await write(send, b"one")
        raise ValueError("in the middle")

    seen: list[bytes] = []
    async with asgi_call(app, "/", b"", request_id="r") as answer:
        seen.append(await anext(answer.frames))
        with pytest.raises(ValueError, match="in the middle"):
            await anext(answer.frames)
    assert seen == [b"one"]


@pytest.mark.parametrize("frames", [255, 256, 257, 1000])
async def test_a_slow_reader_makes_the_application_wait_and_loses_nothing(frames: int) -> None:
    sent = 0

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent
        await start(send)
        for number in range(frames):
            await write(send, b"%d" % number)
            sent += 1

    async with asgi_call(app, "/", b"", request_id="r") as answer:
        for _ in range(20):
            await asyncio.sleep(0)
        assert sent == min(frames, asgi._FRAMES_AHEAD)
        seen = [frame async for frame in answer.frames]
    assert seen == [b"%d" % number for number in range(frames)]


async def test_leaving_while_the_application_waits_for_the_reader_ends_it() -> None:
    ended = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        for number in range(1000):
            await write(send, b"%d" % number)
        await receive()
        await receive()
        ended.set()

    async with asyncio.timeout(10), asgi_call(app, "/", b"", request_id="r") as answer:
        await anext(answer.frames)
    assert ended.is_set()


async def test_context_variables_set_at_the_start_are_the_applications_own() -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="outside")
    seen: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        await start(send)

    async with asgi_call(app, "/", b"", request_id="r", on_start=lambda: variable.set("inside") and None):
        pass
    assert (seen, variable.get()) == (["inside"], "outside")


async def test_waiting_for_the_first_frame_takes_nothing_from_the_answer() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await write(send, b"one")
        await write(send, b"two", more=False)

    async with asgi_call(app, "/", b"", request_id="r") as answer:
        assert [await answer.begin(), await answer.begin()] == [b"one", b"one"]
        assert [frame async for frame in answer.frames] == [b"one", b"two"]


async def test_an_answer_without_a_frame_has_no_first_one() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await write(send, b"", more=False)

    async with asgi_call(app, "/", b"", request_id="r") as answer:
        assert await answer.begin() is None
        assert [frame async for frame in answer.frames] == []
