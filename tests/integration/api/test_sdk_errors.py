"""What goes wrong, as the stock SDK tells it to a program; over a real socket, without Ray."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web

from tests.integration.api.conftest import Front, Opener
from tests.unit.serving.openai_server import FakeOpenAI, serving

pytestmark = pytest.mark.redis

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


@contextlib.asynccontextmanager
async def client_of(there: Front, key: str = "any", **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{there.url}/v1", api_key=key, **({"max_retries": 0} | options)) as client:
        yield client


def told(error: openai.APIStatusError) -> dict[str, Any]:
    """The envelope, which the SDK has opened."""
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}
    return error.body


@pytest.mark.parametrize(
    ("change", "kind", "status", "code"),
    [
        ({"temperature": 9}, openai.BadRequestError, 400, "invalid_value"),
        ({"messages": []}, openai.BadRequestError, 400, "invalid_value"),
        ({"max_tokens": 100_000}, openai.BadRequestError, 400, "context_length_exceeded"),
        ({"model": "other"}, openai.NotFoundError, 404, "model_not_found"),
        ({"model": "secret"}, openai.PermissionDeniedError, 403, "model_forbidden"),
        ({"user": "x" * 5000}, openai.APIStatusError, 413, "request_too_large"),
    ],
)
async def test_a_wrong_request_raises_the_class_of_its_status(
    front: Opener, change: dict[str, Any], kind: type[openai.APIStatusError], status: int, code: str
) -> None:
    access = {"api_keys": {"acme": "key"}, "tenants": {"acme": {"models": ["m", "other"]}}}
    async with front(access=access, server={"max_body_bytes": 4096}) as there, client_of(there, "key") as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(**ASK | change)
        assert caught.value.status_code == status
        assert told(caught.value)["code"] == code
        assert caught.value.request_id


async def test_a_key_that_is_wrong_or_the_admins_is_told_apart(front: Opener) -> None:
    access = {"api_keys": {"acme": "key"}, "admin_key": "the-admin"}
    async with front(access=access) as there:
        for key, kind in (("wrong", openai.AuthenticationError), ("the-admin", openai.PermissionDeniedError)):
            async with client_of(there, key) as client:
                with pytest.raises(kind) as caught:
                    await client.chat.completions.create(**ASK)
                assert key not in caught.value.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [(422, openai.UnprocessableEntityError), (409, openai.ConflictError), (400, openai.BadRequestError)],
)
async def test_what_an_upstream_judges_wrong_keeps_its_status(
    front: Opener, status: int, kind: type[openai.APIStatusError]
) -> None:
    upstream = FakeOpenAI("m")

    async def refuse(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        error = {"message": "no such grammar", "type": "invalid_request_error", "param": "guided", "code": None}
        return web.json_response({"error": error}, status=status)

    upstream.answer = refuse
    async with serving(upstream.app) as url:
        engine = {"kind": "upstream", "upstream": {"url": url}}
        async with front(engine=engine) as there, client_of(there) as client:
            for stream in (False, True):
                with pytest.raises(kind) as caught:
                    await client.chat.completions.create(**ASK, stream=stream)
                assert told(caught.value)["message"] == "no such grammar"
            assert there.settled()


async def test_an_engine_that_is_away_is_a_503(front: Opener) -> None:
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(contextlib.AsyncExitStack())
        url = await upstream.enter_async_context(serving(FakeOpenAI("m").app))
        there = await stack.enter_async_context(front(engine={"kind": "upstream", "upstream": {"url": url}}))
        client = await stack.enter_async_context(client_of(there))
        assert (await client.chat.completions.create(**ASK)).choices
        await upstream.aclose()
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(**ASK, stream=stream)
            assert (caught.value.status_code, told(caught.value)["code"]) == (503, "engine_unavailable")
        assert there.settled()


async def test_a_defect_of_ours_is_a_500_without_our_words(front: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    async with front() as there, client_of(there) as client:

        def broken(_: Any) -> None:
            raise RuntimeError("the innards")

        monkeypatch.setattr(there.gateway, "open", broken)
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**ASK)
        assert caught.value.status_code == 500
        assert "innards" not in str(caught.value.body)
        assert told(caught.value)["code"] == "internal_error"


async def test_a_deadline_is_a_504(front: Opener) -> None:
    async with front() as there, client_of(there) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(
                **ASK | {"max_tokens": 4000},
                extra_body={"ignore_eos": True},
                extra_headers={"x-request-timeout": "2"},
            )
        assert (caught.value.status_code, told(caught.value)["code"]) == (504, "deadline_exceeded")
        assert there.settled()


class HalfABody(httpx.AsyncBaseTransport):
    """A client that stops in mid-body and waits for what it is told."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        reader, writer = await asyncio.open_connection(request.url.host, request.url.port)
        head = f"POST {request.url.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[: len(body) // 2])
        raw = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(raw.split()[1])
        headers = dict(line.lower().split(": ", 1) for line in raw.split("\r\n")[1:] if line)
        content = await reader.readexactly(int(headers["content-length"]))
        writer.close()
        return httpx.Response(status, headers=headers, content=content, request=request)


async def test_a_body_that_does_not_come_is_a_408(front: Opener) -> None:
    async with (
        front(server={"request_timeout_seconds": 0.3}) as there,
        client_of(there, http_client=httpx.AsyncClient(transport=HalfABody())) as client,
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(**ASK)
        assert (caught.value.status_code, told(caught.value)["code"]) == (408, "request_timeout")


async def test_the_sdk_waits_as_long_as_it_is_told_and_then_is_served(
    front: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = {"api_keys": {"acme": "key"}, "tenants": {"acme": {"limits": {"concurrent_requests": 1}}}}
    async with front(access=access) as there, client_of(there, "key", max_retries=3) as client:
        first = await client.chat.completions.create(
            **ASK | {"max_tokens": 4000}, stream=True, extra_body={"ignore_eos": True}
        )
        await anext(aiter(first))
        waits: list[float] = []

        async def waited(seconds: float) -> None:
            # in place of the wait: what it waited for has come about
            waits.append(seconds)
            await first.close()
            while not there.settled():  # noqa: ASYNC110  (another connection's end)
                await asyncio.sleep(0.01)

        monkeypatch.setattr("openai._base_client.anyio.sleep", waited)
        raw = await client.chat.completions.with_raw_response.create(**ASK)
        assert raw.parse().choices
        assert raw.retries_taken == len(waits) >= 1
        assert waits[0] == 1.0, "retry-after"


async def test_a_full_queue_tells_the_sdk_when_to_come_back(front: Opener) -> None:
    async with front(admission={"max_concurrency": 1, "max_queue": 0}) as there, client_of(there) as client:
        first = await client.chat.completions.create(
            **ASK | {"max_tokens": 4000}, stream=True, extra_body={"ignore_eos": True}
        )
        await anext(aiter(first))
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**ASK)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert told(caught.value)["code"] == "queue_full"
        await first.close()


async def test_a_server_that_is_not_there_is_a_connection_error(front: Opener) -> None:
    async with front() as there:
        url = there.url
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(**ASK)
