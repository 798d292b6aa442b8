"""The engines of a gateway replica: one in its own process, or several that it reaches."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from serving.admission.queue import AdmissionQueue
from serving.config import GatewayConfig
from serving.engines.base import Engine
from serving.engines.fallback import FallbackEngine
from serving.engines.separate import SeparateEngine
from serving.engines.several import SeveralEngines
from serving.engines.upstream import UpstreamEngine
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.operations.events import EventLog
from serving.placement.metered_engine import MeteredEngine, upstream_spare
from serving.placement.metering_setup import model_profile, node_hardware
from serving.placement.node_link import meter_link, node_meter_handle
from serving.placement.placed import InternalLink, PlacedModel, engine_config, placed_models

_MEET_SECONDS = 15.0
"""For the proxy to know the models' routes; a model that is not there by then is waited for while others answer."""
_LOOK_SECONDS = 0.2


class Engines(Protocol):
    """What a gateway replica has to do with its engines."""

    engine: Engine
    meter: MeterLink
    actor: Any
    """The node's meter."""

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Each with a queue and a state of its own."""

    async def start(self) -> None: ...

    async def warm_up(self) -> None: ...

    async def tick(self) -> None:
        """Called about once a second."""

    async def close(self) -> None: ...


def build_engines(
    config: GatewayConfig,
    caps: Mapping[str, AdmissionQueue],
    link: InternalLink | None,
    source: str,
    metrics: Metrics,
    events: EventLog,
    tell: Callable[[str], None],
) -> Engines:
    """``caps``: the queues before them, by model."""
    if not placed_models(config):
        return MeteredEngine(config, source, metrics, events, tell)
    return SeparateEngines(config, caps, link, source, metrics, tell)


class SeparateEngines:
    """The models of `models`, each reached by HTTP. Their work is booked where it is done; an upstream's, here."""

    def __init__(
        self,
        config: GatewayConfig,
        caps: Mapping[str, AdmissionQueue],
        link: InternalLink | None,
        source: str,
        metrics: Metrics,
        tell: Callable[[str], None],
    ) -> None:
        self._tell = tell
        self._config = config
        self._source = source
        self._placed = placed_models(config)
        self.actor = node_meter_handle(config, os.environ["PROMETHEUS_MULTIPROC_DIR"], source)
        # the host's watts do not depend on what engine runs on it
        hardware = node_hardware(engine_config(config, self._placed[0]))
        self.meter = meter_link(self.actor, config, source, metrics, hardware.host_watts_per_core)
        own = {one.name: self._engine(one, link) for one in self._placed}
        self._apart = tuple(engine for engine in own.values() if isinstance(engine, SeparateEngine))
        self._several = SeveralEngines([self._with_fallback(one, own, caps) for one in self._placed])
        self.engine: Engine = self._several

    def _engine(self, placed: PlacedModel, link: InternalLink | None) -> Engine:
        if not placed.apart:
            return UpstreamEngine(placed.engine, self.meter.steps, expected=(placed.name,))
        assert link is not None, "the supervisor makes one"
        return SeparateEngine(placed.engine, placed.served_names, url=link.url + placed.route, token=link.token)

    def _with_fallback(
        self, placed: PlacedModel, own: Mapping[str, Engine], caps: Mapping[str, AdmissionQueue]
    ) -> Engine:
        main, fallback = own[placed.name], placed.settings.fallback
        if fallback is None:
            return main
        if fallback.upstream is not None:
            return FallbackEngine(main, *upstream_spare(fallback, self.meter.steps))
        assert fallback.model is not None
        return FallbackEngine(main, own[fallback.model], fallback.model, queue=caps[fallback.model], owned=False)

    @property
    def engines(self) -> tuple[Engine, ...]:
        return self._several.engines

    async def start(self) -> None:
        await self.engine.start()
        self.meter.flush_engine = self.engine.flush
        until = time.monotonic() + _MEET_SECONDS
        while time.monotonic() < until:
            met = await asyncio.gather(*(engine.probe() for engine in self._apart))
            if all(status.ready for status in met):
                break
            await asyncio.sleep(_LOOK_SECONDS)
        for one in self.engines:
            if not one.status().ready:
                self._tell(f"not there yet: {', '.join(model.name for model in one.models())}: {one.status().reason}")
        self.meter.profiles = {
            model.name: model_profile(model, node_hardware(engine_config(self._config, one)))
            for one, engine in zip(self._placed, self.engines, strict=True)
            if not one.apart
            for model in engine.models()
        }
        # no device of this node works for an upstream elsewhere, whatever its neighbours run on
        here = tuple(one.name for one in self._placed if not one.apart)
        await self.actor.attach.remote(self._source, list(self.meter.profiles.values()), here)
        self.meter.start()

    async def warm_up(self) -> None:
        """Each is warmed up where it runs."""

    async def tick(self) -> None:
        """Each sleeps where it runs."""

    async def close(self) -> None:
        await self.meter.close()
        await self.engine.close()
