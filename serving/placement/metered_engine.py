"""An engine in this process with its line to the node's meter: started, announced, warmed up, closed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from metering.work import EngineSteps
from serving.config import GatewayConfig
from serving.engines.base import Engine, EngineRequest, StepSink
from serving.engines.fallback import FallbackEngine
from serving.engines.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from serving.engines.sleeping import SleepingEngine
from serving.metrics import Metrics
from serving.models_settings import FallbackSettings
from serving.operations.events import EventLog
from serving.placement.metering_setup import model_profile, node_hardware
from serving.placement.node_link import meter_link, node_meter_handle
from serving.placement.scale_to_zero import sleeper
from serving.tuning.step_log import StepLog

_WARM_UP_PROMPT = "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is"
WARM_UP_TENANT = "wattgate"
"""The warm-up's own work is metered too, and is nobody else's."""


def build_engine(
    config: GatewayConfig, steps: StepSink, tell: Callable[[str], None], sleeping: SleepingEngine | None = None
) -> Engine:
    """The configured engine (or what stands for it while it sleeps), with its fallback."""
    main = sleeping or _engine(config, steps, tell)
    if config.fallback is None or config.fallback.upstream is None:
        return main
    return FallbackEngine(main, *upstream_spare(config.fallback, steps))


def upstream_spare(fallback: FallbackSettings, steps: StepSink) -> tuple[Engine, str | None]:
    """A fallback elsewhere, and the name asked for there; it need not be there at the start."""
    from serving.engines.upstream import UpstreamEngine

    assert fallback.upstream is not None
    settings, name = EngineSettings(kind="upstream", upstream=fallback.upstream), fallback.model
    if name is not None:
        settings = settings.model_copy(update={"model": name})
    return UpstreamEngine(settings, steps, expected=() if name is None else (name,)), name


def _engine(config: GatewayConfig, steps: StepSink, tell: Callable[[str], None]) -> Engine:
    # each is imported only where it is used
    if config.engine.kind == "simulated":
        return SimulatedEngine(config.engine, steps)
    if config.engine.kind == "upstream":
        from serving.engines.upstream import UpstreamEngine

        name = config.engine.served_model_name
        late = (name,) if name is not None and config.fallback is not None else None
        return UpstreamEngine(config.engine, steps, expected=late)
    from serving.engines.vllm import VllmEngine

    return VllmEngine(config.engine, steps, tell)


class MeteredEngine:
    """One engine, its meter link and the profiles of its models."""

    def __init__(
        self,
        config: GatewayConfig,
        source: str,
        metrics: Metrics,
        events: EventLog,
        tell: Callable[[str], None],
        *,
        node: GatewayConfig | None = None,
        name: str | None = None,
    ) -> None:
        """``node``: the whole configuration, and ``name`` the model's in it, where ``config`` is one model's."""
        self._config = config
        self._source = source
        self._tell = tell
        self._name = name
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        self._hardware = node_hardware(config)
        self.actor = node_meter_handle(node or config, folder, source)
        self.meter = meter_link(self.actor, config, source, metrics, self._hardware.host_watts_per_core)
        self._metrics = metrics
        step_log = StepLog(Path(folder).parent)

        def stepped(steps: EngineSteps) -> None:
            self.meter.steps(steps)
            step_log.add(steps)

        self._sleeper = sleeper(
            config.engine,
            lambda: _engine(config, stepped, tell),
            partial(self.actor.metered_joules.remote, source),
            metrics,
            events,
        )
        self.engine = build_engine(config, stepped, tell, self._sleeper)

    @property
    def engines(self) -> tuple[Engine, ...]:
        return (self.engine,)

    async def start(self) -> None:
        """Returns when the engine can answer and the meter knows it."""
        await self.engine.start()
        self.meter.flush_engine = self.engine.flush
        self.meter.profiles = {model.name: model_profile(model, self._hardware) for model in self.engine.models()}
        await self.actor.attach.remote(
            self._source,
            list(self.meter.profiles.values()),
            None if self._name is None else (self._name,),
            gpus=self._hardware.gpus if self.engine.kind == "vllm" else (),
        )
        self.meter.start()

    async def warm_up(self) -> None:
        # the first run through a model is slow, and without one closed window a first answer has no joules
        if self.engine.kind != "vllm":
            return
        self._tell("warming up")
        model = self.engine.models()[0].name
        trace = self.meter.trace(f"warm-up-{self._source}", WARM_UP_TENANT, model)
        payload = {"model": model, "prompt": _WARM_UP_PROMPT, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
        request = EngineRequest(trace.request_id, "/v1/completions", payload, model, WARM_UP_TENANT)
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

    async def tick(self) -> None:
        """Called about once a second: the engine may be unloaded where it is idle."""
        asleep = False
        if self._sleeper is not None:
            await self._sleeper.tick()
            asleep = self._sleeper.status().state != "awake"
        for model in self.engine.models():
            self._metrics.set("wattgate_engine_asleep", 1 if asleep else 0, model.name)

    async def close(self) -> None:
        await self.meter.close()
        await self.engine.close()
