from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cache.memory import MemoryStore
from cache.tiers import ResponseCache
from serving.access import KeyRing
from serving.admission.queue import AdmissionQueue
from serving.api.app import build_app
from serving.gateway import Gateway
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.placement.caching import MetricsObserver
from tests.unit.serving.fakes import Books, HeldEngine

CHAT = "/v1/chat/completions"


@dataclass
class Exchange:
    """One request driven by hand through an ASGI application."""

    task: asyncio.Task[None]
    messages: list[Any] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self) -> None:
        """The client closes its connection."""
        self.gone.set()

    async def frames(self, count: int) -> list[bytes]:
        """The first ``count`` non-empty body messages, when they have come."""
        async with asyncio.timeout(10):
            while len(found := [m["body"] for m in self.messages if m.get("body")]) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return found

    async def end(self) -> Exchange:
        # waited for from outside: a time-out that cancelled the task would end what should have ended by itself
        done, _ = await asyncio.wait({self.task}, timeout=10)
        assert done, "the request does not end"
        await self.task
        return self

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        raw = [(name.decode(), value.decode("latin-1")) for name, value in self.messages[0]["headers"]]
        assert len(dict(raw)) == len(raw), "a header came twice"
        return dict(raw)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return dict(error)

    @property
    def chunks(self) -> list[Any]:
        events = self.body.split(b"\n\n")
        assert events.pop() == b""
        return [orjson.loads(event[6:]) for event in events if event != b"data: [DONE]"]

    @property
    def done(self) -> bool:
        return self.body.endswith(b"data: [DONE]\n\n")


class House:
    """A whole gateway over a held engine, without a server."""

    def __init__(
        self,
        *,
        keys: dict[str, str] | KeyRing | None = None,
        engine: Any = None,
        cap: int = 4,
        queue: int = 4,
        store: MemoryStore | None = None,
        **app: Any,
    ):
        self.engine = engine or HeldEngine()
        self.books = Books()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.cap = AdmissionQueue(cap, queue)
        self.meter = MeterLink("replica", self.books, flush_seconds=1.0, on_fault=lambda _: None)
        self.notices: list[str] = []
        self.store = store or MemoryStore()
        observer = MetricsObserver(self.metrics)
        self.cache = ResponseCache(secret=b"a secret of the tests", store=self.store, observer=observer)
        self.gateway = Gateway(
            engine=self.engine, cap=self.cap, meter=self.meter, metrics=self.metrics, cache=self.cache
        )
        settings: dict[str, Any] = {
            "max_body_bytes": 64 * 1024,
            "max_concurrent_requests": 8,
            "request_timeout_seconds": 30.0,
            "scrape": lambda: (generate_latest(self.registry), "text/plain; version=0.0.4"),
        }
        self.keys = keys if isinstance(keys, KeyRing) else KeyRing(keys or {})
        self.app = build_app(self.gateway, self.keys, **(settings | app))

    def chat(self, text: str = "Hi", **fields: Any) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0, **fields}

    def begin(
        self,
        payload: Any = None,
        *,
        path: str = CHAT,
        query: str = "",
        method: str = "POST",
        raw: bytes | list[bytes] | None = None,
        ends: bool = True,
        send_blocks_after: int | None = None,
        **headers: str,
    ) -> Exchange:
        """Send a request; headers with ``_`` for ``-``. ``ends`` False: more of the body never comes.

        ``send_blocks_after`` messages the client reads no more.
        """
        parts = raw if isinstance(raw, list) else [raw if raw is not None else orjson.dumps(payload)]
        waiting = [
            {"type": "http.request", "body": part, "more_body": not ends or index < len(parts) - 1}
            for index, part in enumerate(parts)
        ]
        exchange = Exchange(None)  # type: ignore[arg-type]

        async def receive() -> Any:
            if waiting:
                return waiting.pop(0)
            await exchange.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            exchange.messages.append(message)
            exchange.arrived.set()
            if send_blocks_after is not None and len(exchange.messages) >= send_blocks_after:
                await asyncio.Event().wait()

        sent = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": sent,
            "client": ("127.0.0.1", 1),
            "server": ("gateway", 80),
            "state": {},
        }
        exchange.task = asyncio.create_task(self.app(scope, receive, send))  # type: ignore[arg-type]
        return exchange

    async def send(self, payload: Any = None, **kwargs: Any) -> Exchange:
        return await self.begin(payload, **kwargs).end()

    async def get(self, path: str, **headers: str) -> Exchange:
        return await self.send(raw=b"", path=path, method="GET", **headers)

    def count(self, name: str, **labels: str) -> float:
        """A series' value, summed over the labels that are not given."""
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def settled(self) -> bool:
        """Nothing is held by a request that has ended."""
        return self.engine.running == 0 and self.cap.running == 0 and self.cap.waiting == 0


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    assert house.settled()


@pytest.fixture
async def new_house() -> AsyncIterator[Callable[..., House]]:
    made: list[House] = []

    def make(**kwargs: Any) -> House:
        made.append(House(**kwargs))
        return made[-1]

    yield make
    assert all(house.settled() for house in made)
