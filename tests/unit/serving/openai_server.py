"""Small HTTP servers with OpenAI's interface: a scripted one, and one in front of an engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from serving.engines.base import Engine, EngineRequest
from serving.errors import GatewayError

Handler = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """The app on loopback; yields its address. A client that goes cancels its handler."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        bound = runner.addresses[0][1]
        yield f"http://127.0.0.1:{bound}"
    finally:
        await runner.cleanup()


def frame(payload: Any) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


class FakeOpenAI:
    """Answers in words made from the prompt; ``answer`` replaces what a completion request gets."""

    def __init__(self, *models: str) -> None:
        self.models = list(models or ("fake-model",))
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.running = 0
        self.aborted = 0
        self.connections: set[Any] = set()
        self.answer: Handler = self.complete
        self.models_answer: Callable[[], Awaitable[web.StreamResponse]] = self.list_models
        self.cached_tokens = 0
        self.pause_seconds = 0.0
        self.app = web.Application(client_max_size=64 * 1024 * 1024)
        self.app.router.add_get("/v1/models", self._models)
        self.app.router.add_post("/v1/chat/completions", self._complete)
        self.app.router.add_post("/v1/completions", self._complete)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return await self.models_answer()

    async def list_models(self) -> web.StreamResponse:
        data = [{"id": name, "object": "model", "max_model_len": 2048} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        payload = orjson.loads(await request.read())
        self.requests.append(payload)
        self.headers.append(dict(request.headers))
        self.connections.add(request.transport)
        self.running += 1
        try:
            return await self.answer(request, payload)
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def complete(self, request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        asked = payload.get("max_tokens") or 16
        if asked > 2048:
            error = {
                "message": f"max_tokens {asked} is too large",
                "type": "invalid_request_error",
                "param": "max_tokens",
            }
            return web.json_response({"error": error}, status=400)
        chat = request.path.endswith("chat/completions")
        prompt = orjson.dumps(payload.get("messages") or payload.get("prompt"))
        prompt_tokens, n = max(1, len(prompt.split())), payload.get("n") or 1
        words = [[f" {index}-{len(prompt)}-{number}" for number in range(asked)] for index in range(n)]
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": asked * n,
            "total_tokens": prompt_tokens + asked * n,
            "prompt_tokens_details": {"cached_tokens": min(self.cached_tokens, prompt_tokens)},
        }
        kind = ("chat.completion" if chat else "text_completion") + (".chunk" if chat and payload.get("stream") else "")
        head = {"id": "x-1", "object": kind, "created": 1, "model": payload["model"]}

        def choice(index: int, text: str | None, finish: str | None, key: str) -> dict[str, Any]:
            said = {key: {"role": "assistant", "content": text}} if chat else {"text": text or ""}
            return {"index": index, "finish_reason": finish, "logprobs": None, **said}

        if not payload.get("stream"):
            for _ in range(asked):
                await asyncio.sleep(self.pause_seconds)
            choices = [choice(index, "".join(words[index]), "length", "message") for index in range(n)]
            return web.json_response({**head, "choices": choices, "usage": usage})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if chat:
            await response.write(frame({**head, "choices": [choice(0, "", None, "delta")]}))
        for number in range(asked):
            await asyncio.sleep(self.pause_seconds)
            for index in range(n):
                await response.write(frame({**head, "choices": [choice(index, words[index][number], None, "delta")]}))
        for index in range(n):
            await response.write(frame({**head, "choices": [choice(index, None, "length", "delta")]}))
        await response.write(frame({**head, "choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def engine_app(engine: Engine) -> web.Application:
    """An engine as an OpenAI server."""

    async def models(request: web.Request) -> web.Response:
        data = [{"id": model.name, "max_model_len": model.max_context_tokens} for model in engine.models()]
        return web.json_response({"object": "list", "data": data})

    async def complete(request: web.Request) -> web.StreamResponse:
        payload = orjson.loads(await request.read())
        asked = EngineRequest(request.headers["x-request-id"], request.path, payload, payload["model"], "remote")
        try:
            async with engine.run(asked, lambda _: None) as answer:
                if not asked.stream:
                    return web.Response(
                        body=b"".join([f async for f in answer.frames]), content_type="application/json"
                    )
                response = web.StreamResponse(headers={"content-type": "text/event-stream"})
                await response.prepare(request)
                async for frame in answer.frames:
                    await response.write(frame)
                await response.write_eof()
                return response
        except GatewayError as error:
            return web.json_response(error.envelope(), status=error.status)

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_post("/v1/completions", complete)
    return app
