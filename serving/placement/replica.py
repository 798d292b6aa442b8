"""One gateway replica: the ASGI application and its engine in one process, as a Ray Serve deployment."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from serving.accounting import UNKNOWN, begin_accounts
from serving.admission.held_cap import HoldableCap
from serving.api.app import build_app
from serving.config import AccessSettings, GatewayConfig
from serving.control_settings import CapControlSettings
from serving.embeddings.encoding import RemoteEncoder
from serving.embeddings.gateway import build_embeddings
from serving.gateway import Gateway
from serving.limits.desk import Desk
from serving.limits.finals import FinalFigures
from serving.metrics import Metrics
from serving.operations.decisions import DECISIONS, DecisionLog
from serving.operations.drift_pages import DriftPages
from serving.operations.drift_references import DRIFT, References
from serving.operations.event_series import EventSeries
from serving.operations.events import EVENTS, EventLog, changes
from serving.placement.batching import build_batches
from serving.placement.caching import build_cache
from serving.placement.cap_control import build_cap_controls
from serving.placement.caps import THE_ENGINE, build_caps, by_served_name, cap_settings, with_live_admission
from serving.placement.deployment import VERSION, has_room_now, node_folder, our_deployment
from serving.placement.drift_rebases import RayRebases
from serving.placement.encoder_replica import HandleEncoder, encoder_deployment
from serving.placement.engine_gauges import EngineGauges
from serving.placement.engines import build_engines
from serving.placement.exporter import Targets, living_nodes
from serving.placement.gpus import own_engine
from serving.placement.held_caps import HeldCaps, RayBoard
from serving.placement.key_watch import build_keys
from serving.placement.limiting import build_limiter
from serving.placement.node_meters import meters_by_address
from serving.placement.nodes_asked import AllNodes
from serving.placement.notices import Notices
from serving.placement.placed import InternalLink, placed_models
from serving.placement.recently_seen import RecentlySeen, node_board, target_board
from serving.placement.redis_servers import RedisUrls
from serving.placement.scrape import scraper
from serving.placement.telemetry import build_drift, build_sinks
from serving.placement.watch import Watch

log = logging.getLogger("wattgate")

_BATCH_GRACE_SECONDS = 10.0
_LAG_PERIOD_SECONDS = 1.0


class Replica:
    """Builds the gateway, and is what Ray Serve asks about its health."""

    def __init__(
        self,
        config: GatewayConfig,
        run_folder: Path,
        redis: RedisUrls,
        link: InternalLink | None = None,
        encoder: RemoteEncoder | None = None,
    ) -> None:
        """``encoder``: None where no embeddings are served."""
        self._link = link
        self._encoder = encoder
        self._config = config
        self._run_folder = run_folder
        self._redis = redis
        self._notices = Notices(run_folder / "notices.jsonl")
        self.source = f"replica-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.metrics = Metrics(CollectorRegistry())
        self.events = EventLog(
            run_folder / EVENTS, recorded=lambda kind: self.metrics.add("wattgate_events_total", 1, kind)
        )
        self._gauges = EngineGauges(self.metrics, self.events)
        references = References(run_folder / DRIFT, run_folder / "drift-vectors", RayRebases())
        self.drift = build_drift(config.telemetry, self.metrics, self.events, references)
        self.decisions = DecisionLog(run_folder / DECISIONS)
        self._live = live_settings(config)

    async def start(self) -> ASGIApp:
        """Load everything. Whatever prevents it is in the notices, for whoever waits for this replica."""
        with self._notices.of_failure("the gateway replica"):
            return await self._start()

    async def _start(self) -> ASGIApp:
        config = self._config
        self.keys, self._key_watch = build_keys(config.access, partial(self._watch_fault, "keys"))
        self.caps = build_caps(config)
        self._holdable = {model: HoldableCap(queue) for model, queue in self.caps.items()}
        self._placed = build_engines(
            config, self.caps, self._link, self.source, self.metrics, self.events, self._notices.tell
        )
        self.engine, self.meter = self._placed.engine, self._placed.meter
        await self._placed.start()
        built = await build_cache(config, self._redis.cache, self.metrics, self._notices.tell, self.drift)
        self.gateway = Gateway(
            engine=self.engine,
            cap=next(iter(self.caps.values())),
            caps=by_served_name(config, self.caps),
            meter=self.meter,
            metrics=self.metrics,
            cache=built.cache,
            shadow=built.shadow,
            grey_zone=built.grey_zone,
            reveal_similarity=config.cache.reveal_similarity,
        )
        self.embeddings = None
        if self._encoder is not None:
            self.embeddings = await build_embeddings(config, self._encoder, self.meter, self.metrics)
        self.limiter = build_limiter(config, self._redis.accounts, self.metrics)
        self.finals = FinalFigures(
            self.limiter,
            self.meter.finals,
            period_seconds=config.metering.window_seconds,
            on_fault=lambda what: self.metrics.add("wattgate_limit_faults_total", 1, what),
        )
        self.finals.start()
        desk = Desk(
            self.gateway,
            self.limiter,
            self.keys.settings,
            assumed_output_tokens=config.limits.assumed_output_tokens,
            finals=self.finals,
        )
        self._control = build_cap_controls(
            config, self._holdable, self.engine, self.meter, self.source, self.metrics, self.events, self.decisions
        )
        self.gateway.runs.token_watch = self._control
        self.sinks = (*build_sinks(config.telemetry, self.metrics, self.drift), self._control)
        only = [model.name for model in self.engine.models()]
        self._held_caps = HeldCaps(
            RayBoard(),
            self._holdable,
            {name: name or only[0] for name in self.caps},
            {name: one.name for one in placed_models(config) for name in one.served_names}
            or dict.fromkeys(only, THE_ENGINE),
            self._live_config,
            source=self.source,
            events=self.events,
            decisions=self.decisions,
        )
        batches = build_batches(config, self.keys, self.metrics)
        self.batches = batches.runner
        await self._placed.warm_up()
        self._lag_task = asyncio.create_task(self._watch(), name="watch")
        self._notices.tell("ready", "ready")
        actor, port = self._placed.actor, config.server.metrics_port
        others = () if self.embeddings is None else self.embeddings.engine.models()
        begin_accounts([UNKNOWN, *(model.name for model in (*self.engine.models(), *others))], self.metrics)
        for model in self.engine.models():
            self.events.record("model", f"{model.name} is served ({self.engine.kind}, {self.source})", model.name)
        app = build_app(
            self.gateway,
            self.keys,
            desk=desk,
            embeddings=self.embeddings,
            sinks=self.sinks,
            log_prompts=config.telemetry.log_prompts == "redacted",
            cors_origins=config.server.cors_origins,
            max_body_bytes=config.server.max_body_bytes,
            max_concurrent_requests=config.server.max_concurrent_requests,
            request_timeout_seconds=config.server.request_timeout_seconds,
            slow_reader_seconds=config.server.slow_reader_seconds,
            scrape=scraper(os.environ["PROMETHEUS_MULTIPROC_DIR"], EventSeries(self.events)),
            events=self.events,
            decisions=self.decisions,
            caps=self._held_caps,
            intensity=actor.intensity.remote,
            recent=actor.recent.remote,
            targets=None if port is None else Targets(lambda: living_nodes(port), RecentlySeen(target_board())),
            nodes=None if port is None else AllNodes(meters_by_address, RecentlySeen(node_board())),
            more_routes=(
                *batches.pages.routes(),
                *DriftPages(self.keys, self.drift, lambda: [model.name for model in self.engine.models()]).routes(),
            ),
        )
        self.batches.start(app)
        return app

    async def _watch(self) -> None:
        """Once a second."""
        loop = asyncio.get_running_loop()
        watch = Watch(
            {
                "keys": self._key_watch.refresh,
                "held caps": self._held_caps.refresh,
                "caps": self._tick_control,
                "engines": self._placed.tick,
                "gauges": self._show_all,
                "drift": self._look_for_drift,
            },
            on_fault=self._watch_fault,
        )
        while True:
            asked = loop.time()
            await asyncio.sleep(_LAG_PERIOD_SECONDS)
            self.metrics.set("wattgate_event_loop_lag_seconds", max(0.0, loop.time() - asked - _LAG_PERIOD_SECONDS))
            self.metrics.set("wattgate_event_loop_tasks", len(asyncio.all_tasks(loop)))
            await watch.round()

    def _watch_fault(self, operation: str) -> None:
        self.metrics.add("wattgate_watch_faults_total", 1, operation)

    async def _tick_control(self) -> None:
        self._control.tick(self._held_caps.held)

    async def _look_for_drift(self) -> None:
        if self.drift is not None:
            self.drift.look()

    async def _show_all(self) -> None:
        for engine in self._placed.engines:
            self._gauges.show(engine, self.gateway.runs.cap_of)
        if self.embeddings is not None:
            self._gauges.show(self.embeddings.engine, self.embeddings.runs.cap_of)

    def reconfigure(self, live: dict[str, Any]) -> None:
        """Live settings, as ``live_settings`` made them; no restart, running requests go on."""
        access = AccessSettings.model_validate(live["access"])
        self.keys.grant(access.tenants, access.default_tenant)
        control = CapControlSettings.model_validate(live["control"])
        before = cap_settings(with_live_admission(self._config, self._live))
        for model, cap in cap_settings(with_live_admission(self._config, live)).items():
            # what the controller has made of a cap stays, unless the configured one is another now, or it stops
            stays = control.mode == "on" and cap.requests == before[model].requests
            self._holdable[model].resize(self._holdable[model].cap if stays else cap.requests, policy=cap.policy)
            self._control.reconfigure(model, control, None if stays else cap.requests)
        told = changes("config", self._live, live)
        for change in told:
            self.events.record("cap" if "admission.max_concurrency" in change else "config", change)
        # a tenant's rights change nothing of what engines and admission do with a request
        if self.drift is not None and any(of_admission(change) for change in told):
            self.drift.rebase()
        self._live = live

    def _live_config(self) -> GatewayConfig:
        control = CapControlSettings.model_validate(self._live["control"])
        return with_live_admission(self._config, self._live).model_copy(update={"control": control})

    def check_health(self) -> None:
        """Raises where the replica must be replaced."""
        status = self.engine.status()
        if status.fatal:
            raise RuntimeError(status.reason)

    async def close(self) -> None:
        self._lag_task.cancel()
        # a line that is left begins again with whoever comes after
        await self.batches.close(min(_BATCH_GRACE_SECONDS, self._config.server.shutdown_grace_seconds / 3))
        await self.finals.close()
        await self.limiter.close()
        for sink in self.sinks:
            await asyncio.to_thread(sink.close)
        await self._placed.close()
        if self.gateway.shadow is not None:
            await self.gateway.shadow.close()
        if self.gateway.cache is not None:
            await self.gateway.cache.close()


def of_admission(change: str) -> bool:
    """Of a line of ``changes`` between two live settings."""
    return re.match(r"(models\..+\.)?admission(\.|:)", change) is not None


def live_settings(config: GatewayConfig) -> dict[str, Any]:
    """What may change without a restart; no secrets in it, the keys are not live settings."""
    live = {
        "admission": config.admission.model_dump(mode="json"),
        "control": config.control.model_dump(mode="json"),
        "access": config.access.model_dump(mode="json", include={"tenants", "default_tenant"}),
    }
    if config.models:
        live["models"] = {
            name: {"admission": model.admission.model_dump(mode="json")} for name, model in config.models.items()
        }
    return live


def serve_deployment(
    config: GatewayConfig, redis: RedisUrls, link: InternalLink | None = None, version: str = VERSION
) -> Any:
    """The gateway's Serve application: ``serve.run`` takes it. ``link``: to models in replicas of their own. Another
    ``version`` replaces the replicas one by one; the only one by another beside it, where there is room for it.
    """
    from ray import serve

    @serve.ingress()
    class GatewayReplica:
        async def __init__(  # type: ignore[misc]  # Ray awaits it
            self, config: GatewayConfig, redis: RedisUrls, link: InternalLink | None, encoder: Any
        ) -> None:
            remote = None if encoder is None else HandleEncoder(encoder)
            self.replica = Replica(config, node_folder(), redis, link, remote)
            self._app = await self.replica.start()

        def __serve_build_asgi_app__(self) -> ASGIApp:
            return self._app

        def reconfigure(self, user_config: dict[str, Any]) -> None:
            self.replica.reconfigure(user_config)

        async def check_health(self) -> None:
            self.replica.check_health()

        async def __del__(self) -> None:
            if hasattr(self, "replica"):
                await self.replica.close()

    deployment = our_deployment(
        GatewayReplica,
        config,
        name="gateway",
        replicas=config.server.replicas,
        version=version,
        engine=own_engine(config),
        surge=has_room_now(config),
    )
    deployment = deployment.options(
        user_config=live_settings(config), max_replicas_per_node=config.server.replicas_per_node
    )
    encoder = encoder_deployment(config) if config.embeddings_served else None
    return deployment.bind(config, redis, link, encoder)
