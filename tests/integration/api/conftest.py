from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest

from cache.embedded import EmbeddedRedis
from serving.admission.queue import AdmissionQueue
from serving.api.app import build_app
from serving.config import GatewayConfig
from serving.gateway import Gateway
from serving.limits.desk import Desk
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.placement.key_watch import KeyWatch, build_keys
from serving.placement.limiting import build_limiter
from serving.placement.metered_engine import build_engine
from serving.placement.telemetry import build_sinks
from tests.unit.serving.fakes import Books


@dataclass
class Front:
    """A replica's whole HTTP side over the simulated engine, on a real socket; without Ray."""

    url: str
    port: int
    gateway: Gateway
    keys: KeyWatch
    registry: CollectorRegistry

    def settled(self) -> bool:
        return (
            self.gateway.runs.cap.running == self.gateway.runs.cap.waiting == self.gateway.engine.status().running == 0
        )


@pytest.fixture(scope="module")
def redis_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


Opener = Callable[..., contextlib.AbstractAsyncContextManager[Front]]


@pytest.fixture
def front(redis_server: EmbeddedRedis, tmp_path: Path) -> Opener:
    """Opens replicas; all of them share one Redis."""

    @contextlib.asynccontextmanager
    async def open_front(**sections: Any) -> AsyncIterator[Front]:
        engine_settings = {"kind": "simulated", "served_model_name": "m"}
        config = GatewayConfig.model_validate({"engine": engine_settings, **sections})
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        meter = MeterLink("replica", Books(), flush_seconds=1.0, on_fault=lambda _: None)
        engine = build_engine(config, meter.steps, lambda _: None)
        await engine.start()
        queue = AdmissionQueue(config.admission.max_concurrency, policy=config.admission.policy())
        gateway = Gateway(engine=engine, cap=queue, meter=meter, metrics=metrics)
        ring, watch = build_keys(config.access)
        limiter = build_limiter(config, redis_server.url, metrics)
        sinks = build_sinks(config.telemetry, metrics)
        app = build_app(
            gateway,
            ring,
            desk=Desk(gateway, limiter, ring.settings),
            sinks=sinks,
            max_body_bytes=config.server.max_body_bytes,
            max_concurrent_requests=config.server.max_concurrent_requests,
            request_timeout_seconds=config.server.request_timeout_seconds,
            scrape=lambda: (generate_latest(registry), "text/plain; version=0.0.4"),
        )
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with asyncio.timeout(20):
                while not server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
                    await asyncio.sleep(0.01)
            yield Front(f"http://127.0.0.1:{port}", port, gateway, watch, registry)
        finally:
            server.should_exit = True
            await task
            await limiter.close()
            for sink in sinks:
                await asyncio.to_thread(sink.close)
            await engine.close()

    return open_front
