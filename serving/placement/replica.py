"""One gateway replica: the ASGI application and its engine in one process, as a Ray Serve deployment."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess
from starlette.types import ASGIApp

from serving.admission.queue import AdmissionQueue
from serving.api.app import build_app
from serving.config import AccessSettings, AdmissionSettings, GatewayConfig
from serving.engines.base import Engine, EngineRequest, EngineStartError, StepSink
from serving.engines.simulated import SimulatedEngine
from serving.gateway import Gateway
from serving.limits.desk import Desk
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.operations.events import EventLog, changes
from serving.placement.batching import build_batches
from serving.placement.caching import build_cache
from serving.placement.key_watch import build_keys
from serving.placement.limiting import build_limiter
from serving.placement.metering_setup import model_profile, node_hardware
from serving.placement.node_link import ActorMeter, node_meter_handle
from serving.placement.notices import Notices
from serving.placement.telemetry import build_sinks

log = logging.getLogger("wattgate")

_LAG_PERIOD_SECONDS = 1.0
_WARM_UP_PROMPT = "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is"
_WARM_UP_TENANT = "wattgate"
"""The warm-up's own work is metered too, and is nobody else's."""


def build_engine(config: GatewayConfig, steps: StepSink, tell: Callable[[str], None]) -> Engine:
    """The configured engine; each is imported only where it is used."""
    if config.engine.kind == "simulated":
        return SimulatedEngine(config.engine, steps)
    if config.engine.kind == "upstream":
        from serving.engines.upstream import UpstreamEngine

        return UpstreamEngine(config.engine, steps)
    from serving.engines.vllm import VllmEngine

    return VllmEngine(config.engine, steps, tell)


class Replica:
    """Builds the gateway, and is what Ray Serve asks about its health."""

    def __init__(self, config: GatewayConfig, run_folder: Path, redis_url: str | None) -> None:
        self._config = config
        self._run_folder = run_folder
        self._redis_url = redis_url
        self._notices = Notices(run_folder / "notices.jsonl")
        self.source = f"replica-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.metrics = Metrics(CollectorRegistry())
        self._dead_counted = False
        self.events = EventLog(run_folder / "events.jsonl")
        self._live = _live_settings(config.admission, config.access)

    async def start(self) -> ASGIApp:
        """Load everything. Whatever prevents it is in the notices, for whoever waits for this replica."""
        try:
            return await self._start()
        except EngineStartError as error:
            self._notices.tell(str(error), "failed")
            raise
        except Exception as error:
            self._notices.tell("".join(traceback.format_exception(error)), "detail")
            first = (str(error).splitlines() or [""])[0]
            self._notices.tell(f"the gateway replica failed: {type(error).__name__}: {first}", "failed")
            raise

    async def _start(self) -> ASGIApp:
        config = self._config
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        hardware = node_hardware(config)
        self.keys, self._key_watch = build_keys(config.access)
        self.cap = AdmissionQueue(config.admission.max_concurrency, policy=config.admission.policy())
        actor = node_meter_handle(config, folder)
        meter = MeterLink(
            self.source,
            ActorMeter(actor),
            flush_seconds=config.metering.window_seconds / 2,
            on_fault=lambda fault: self.metrics.add("wattgate_meter_faults_total", 1, fault),
            host_watts_per_core=hardware.host_watts_per_core,
        )
        self.meter = meter
        self.engine = build_engine(config, meter.steps, self._notices.tell)
        await self.engine.start()
        meter.flush_engine = self.engine.flush
        meter.profiles = {model.name: model_profile(model, hardware) for model in self.engine.models()}
        await actor.attach.remote(self.source, list(meter.profiles.values()))
        meter.start()
        built = await build_cache(config, self._redis_url, self.metrics, self._notices.tell)
        self.gateway = Gateway(
            engine=self.engine,
            cap=self.cap,
            meter=meter,
            metrics=self.metrics,
            cache=built.cache,
            shadow=built.shadow,
            reveal_similarity=config.cache.reveal_similarity,
        )
        self.limiter = build_limiter(config, self._redis_url, self.metrics)
        desk = Desk(
            self.gateway,
            self.limiter,
            self.keys.settings,
            assumed_output_tokens=config.limits.assumed_output_tokens,
        )
        self.sinks = build_sinks(config.telemetry, self.metrics)
        batches = build_batches(config, self.keys, self.metrics)
        self.batches = batches.runner
        await self._warm_up()
        self._lag_task = asyncio.create_task(self._watch(), name="watch")
        self._notices.tell("ready", "ready")
        for model in self.engine.models():
            self.events.record("model", f"{model.name} is served ({self.engine.kind}, {self.source})", model.name)
        app = build_app(
            self.gateway,
            self.keys,
            desk=desk,
            sinks=self.sinks,
            cors_origins=config.server.cors_origins,
            max_body_bytes=config.server.max_body_bytes,
            max_concurrent_requests=config.server.max_concurrent_requests,
            request_timeout_seconds=config.server.request_timeout_seconds,
            scrape=scraper(folder),
            events=self.events,
            more_routes=batches.pages.routes(),
        )
        self.batches.start(app)
        return app

    async def _warm_up(self) -> None:
        # the first run through a model is slow, and without one closed window a first answer has no joules
        if self.engine.kind != "vllm":
            return
        self._notices.tell("warming up")
        model = self.engine.models()[0].name
        trace = self.meter.trace(f"warm-up-{self.source}", _WARM_UP_TENANT, model)
        payload = {"model": model, "prompt": _WARM_UP_PROMPT, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
        request = EngineRequest(trace.request_id, "/v1/completions", payload, model, _WARM_UP_TENANT)
        for _ in range(2):
            # the first finds cold caches: only the second's rates are like those to come
            async with self.engine.run(request, trace.record) as answer:
                async for _ in answer.frames:
                    pass
            ended = time.monotonic()
            await self._rates_after(ended)
        self.meter.finished(trace.request_id)

    async def _rates_after(self, seconds: float) -> None:
        """Wait until the window is booked in which the warm-up ended; a meter that is slow is not waited for."""
        until = seconds + 3 * self._config.metering.window_seconds + 2
        while (self.meter.rates.window_end_seconds or 0.0) < seconds and time.monotonic() < until:
            await self.meter.flush()
            await asyncio.sleep(self._config.metering.window_seconds / 4)

    async def _watch(self) -> None:
        """Gauges, once a second."""
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            await asyncio.sleep(_LAG_PERIOD_SECONDS)
            self.metrics.set("wattgate_event_loop_lag_seconds", max(0.0, loop.time() - asked - _LAG_PERIOD_SECONDS))
            await self._key_watch.refresh()
            status = self.engine.status()
            for model in self.engine.models():
                self.metrics.set("wattgate_running_requests", self.cap.running, model.name)
                self.metrics.set("wattgate_waiting_requests", self.cap.waiting, model.name)
                self.metrics.set("wattgate_concurrency_cap", self.cap.cap, model.name)
                self.metrics.set("wattgate_engine_ready", 1 if status.ready else 0, model.name)
                if status.fatal and not self._dead_counted:
                    self._dead_counted = True
                    self.metrics.add("wattgate_engine_deaths_total", 1, model.name)

    def reconfigure(self, settings: AdmissionSettings, access: AccessSettings) -> None:
        """Live settings; no restart, running requests go on."""
        self.keys.grant(access.tenants, access.default_tenant)
        self.cap.resize(settings.max_concurrency, policy=settings.policy())
        live = _live_settings(settings, access)
        for change in changes("config", self._live, live):
            self.events.record("cap" if change.startswith("admission.max_concurrency") else "config", change)
        self._live = live

    def check_health(self) -> None:
        """Raises where the replica must be replaced."""
        status = self.engine.status()
        if status.fatal:
            raise RuntimeError(status.reason)

    async def close(self) -> None:
        self._lag_task.cancel()
        await self.batches.close(self._config.server.shutdown_grace_seconds / 3)
        await self.limiter.close()
        for sink in self.sinks:
            await asyncio.to_thread(sink.close)
        await self.meter.close()
        await self.engine.close()
        if self.gateway.shadow is not None:
            await self.gateway.shadow.close()
        if self.gateway.cache is not None:
            await self.gateway.cache.close()


def _live_settings(admission: AdmissionSettings, access: AccessSettings) -> dict[str, Any]:
    grants = access.model_dump(mode="json", include={"tenants", "default_tenant"})
    return {"admission": admission.model_dump(mode="json"), "access": grants}


def scraper(folder: str) -> Callable[[], tuple[bytes, str]]:
    """The exposition of all of the node's processes, from their shared folder."""

    def scrape() -> tuple[bytes, str]:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST

    return scrape


_VERSION = "1"
"""The same for the life of a run: without one Ray draws a new version for each deployment, and every change of
the live settings would replace the replica and load the model again.
"""


def serve_deployment(config: GatewayConfig, run_folder: Path, redis_url: str | None) -> Any:
    """The Serve application: ``serve.run`` takes it."""
    from ray import serve

    @serve.ingress()
    class GatewayReplica:
        async def __init__(  # type: ignore[misc]  # Ray awaits it
            self, config: GatewayConfig, run_folder: str, redis_url: str | None
        ) -> None:
            self.replica = Replica(config, Path(run_folder), redis_url)
            self._app = await self.replica.start()

        def __serve_build_asgi_app__(self) -> ASGIApp:
            return self._app

        def reconfigure(self, user_config: dict[str, Any]) -> None:
            self.replica.reconfigure(
                AdmissionSettings.model_validate(user_config["admission"]),
                AccessSettings.model_validate(user_config["access"]),
            )

        async def check_health(self) -> None:
            self.replica.check_health()

        async def __del__(self) -> None:
            if hasattr(self, "replica"):
                await self.replica.close()

    limit = config.server.max_concurrent_requests
    deployment = serve.deployment(
        GatewayReplica,
        name="gateway",
        num_replicas=config.server.replicas,
        # admission is ours, counted and checked in one step: Ray's own limit only has to be out of the way
        max_ongoing_requests=2 * limit,
        # no secrets in it: the keys are not live settings
        user_config={
            "admission": config.admission.model_dump(mode="json"),
            "access": config.access.model_dump(mode="json", include={"tenants", "default_tenant"}),
        },
        health_check_period_s=2,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=config.server.shutdown_grace_seconds,
        ray_actor_options={"num_cpus": 0},
    )
    # Ray keeps this argument to itself; a config file deployed through its REST API sets it the same way
    deployment = deployment.options(version=_VERSION, _internal=True)
    return deployment.bind(config, str(run_folder), redis_url)
