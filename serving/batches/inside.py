"""A request of the gateway's own making, through its whole HTTP side without a socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import ASGIApp, Message

from serving.access import TENANT_INSIDE
from serving.asgi_scope import post_scope


@dataclass(frozen=True, slots=True)
class InsideAnswer:
    status: int
    request_id: str
    body: Any
    retry_after_seconds: float | None
    """What the gateway asks for; None where it does not."""

    @property
    def code(self) -> str | None:
        """Of an error."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return error.get("code") if isinstance(error, dict) else None


async def ask(app: ASGIApp, tenant: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> InsideAnswer:
    """POST as a tenant that was authenticated before. Cancelling it is a client that goes."""
    raw = orjson.dumps(body)
    waiting: list[Message] = [{"type": "http.request", "body": raw, "more_body": False}]
    status, told, parts = 500, dict[str, str](), list[bytes]()

    async def receive() -> Message:
        if waiting:
            return waiting.pop()
        # it stays until it has its answer
        await asyncio.get_running_loop().create_future()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            told.update((name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"])
        else:
            parts.append(message.get("body", b""))

    scope = post_scope(path, headers) | {TENANT_INSIDE: tenant}
    await app(scope, receive, send)
    try:
        answer = orjson.loads(b"".join(parts))
    except orjson.JSONDecodeError:
        answer = None
    after = told.get("retry-after")
    return InsideAnswer(status, told.get("x-request-id", ""), answer, float(after) if after else None)
