"""A replica of one model's engine, behind an internal route; the gateway's replicas ask it."""

from __future__ import annotations

import asyncio
import uuid
from os import getpid
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from serving.api.engine_app import EngineApp
from serving.config import GatewayConfig
from serving.metrics import Metrics
from serving.operations.events import EventLog
from serving.placement.deployment import our_deployment
from serving.placement.engine_gauges import tell_death
from serving.placement.metered_engine import MeteredEngine
from serving.placement.notices import Notices
from serving.placement.placed import InternalLink, PlacedModel, engine_config

_LOOK_SECONDS = 1.0


class ModelReplica:
    """The engine, its books, and what Ray Serve asks about its health."""

    def __init__(self, config: GatewayConfig, placed: PlacedModel, run_folder: Path, link: InternalLink) -> None:
        self._notices = Notices(run_folder / "notices.jsonl")
        self._events = EventLog(run_folder / "events.jsonl")
        self._placed = placed
        self._config = config
        self._link = link
        self._source = f"model-{getpid()}-{uuid.uuid4().hex[:8]}"
        self._metrics = Metrics(CollectorRegistry())

    async def start(self) -> ASGIApp:
        """Load the model. Whatever prevents it is in the notices."""
        with self._notices.of_failure(f"the replica of {self._placed.name}"):
            own = engine_config(self._config, self._placed)
            self._metered = MeteredEngine(
                own,
                self._source,
                self._metrics,
                self._events,
                self._notices.tell,
                node=self._config,
                name=self._placed.name,
            )
            await self._metered.start()
            await self._metered.warm_up()
        self._watching = asyncio.create_task(self._watch(), name="watch")
        kind = self._metered.engine.kind
        for model in self._metered.engine.models():
            self._events.record("model", f"{model.name} is loaded ({kind}, {self._source})", model.name)
        return EngineApp(
            self._metered.engine,
            self._metered.meter,
            self._link.token,
            # the gateway has judged it; its own fields come on top
            max_body_bytes=self._config.server.max_body_bytes + 64 * 1024,
            cache_verdict="BYPASS" if self._config.cache.tier == "off" else "MISS",
        )

    async def _watch(self) -> None:
        while not self._metered.engine.status().fatal:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._metered.tick()
        engine = self._metered.engine
        tell_death(engine.models(), engine.status().reason, self._metrics, self._events)

    def check_health(self) -> None:
        """Raises where the replica must be replaced."""
        status = self._metered.engine.status()
        if status.fatal:
            raise RuntimeError(status.reason)

    async def close(self) -> None:
        self._watching.cancel()
        await self._metered.close()


def model_deployment(config: GatewayConfig, placed: PlacedModel, run_folder: Path, link: InternalLink) -> Any:
    """The model's Serve application."""
    from ray import serve

    @serve.ingress()
    class EngineReplica:
        async def __init__(  # type: ignore[misc]  # Ray awaits it
            self, config: GatewayConfig, placed: PlacedModel, run_folder: str, link: InternalLink
        ) -> None:
            self.replica = ModelReplica(config, placed, Path(run_folder), link)
            self._app = await self.replica.start()

        def __serve_build_asgi_app__(self) -> ASGIApp:
            return self._app

        async def check_health(self) -> None:
            self.replica.check_health()

        async def __del__(self) -> None:
            if hasattr(self, "replica"):
                await self.replica.close()

    deployment = our_deployment(
        EngineReplica, config, name="engine", replicas=placed.settings.replicas, engine=placed.engine
    )
    return deployment.bind(config, placed, str(run_folder), link)
