"""An application that answers lines as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from serving.access import TENANT_INSIDE

Script = Callable[[str, int], tuple[int, dict[str, str]]]
"""A line's text and how often it came, this time included, to a status and headers."""


class ScriptedApp:
    """ASGI. Everything is answered 200 unless ``script`` says otherwise; a closed ``gate`` holds answers back."""

    def __init__(self, script: Script = lambda text, times: (200, {})) -> None:
        self.script = script
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[str] = []
        self.tenants: set[str] = set()
        self.headers: list[dict[bytes, bytes]] = []
        self.running = self.most = 0
        self.entered = asyncio.Event()

    async def full(self, running: int) -> None:
        """So many are held, and nobody else has come after time enough for it."""
        while self.running < running:
            self.entered.clear()
            await self.entered.wait()
        for _ in range(50):
            await asyncio.to_thread(lambda: None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        text = orjson.loads((await receive())["body"])["messages"][0]["content"]
        self.asked.append(text)
        self.tenants.add(scope[TENANT_INSIDE])
        self.headers.append(dict(scope["headers"]))
        self.running += 1
        self.most = max(self.most, self.running)
        self.entered.set()
        try:
            await self.gate.wait()
            status, headers = self.script(text, self.asked.count(text))
        finally:
            self.running -= 1
        body: dict[str, Any] = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
        if status != 200:
            body = {"error": {"message": "no", "type": "t", "param": None, "code": headers.pop("code", None)}}
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": orjson.dumps(body)})
