"""What a replica tells of its engines once a second: their queues, whether they are ready, and that one has died."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from serving.admission.queue import AdmissionQueue
from serving.engines.base import Engine, EngineModel
from serving.engines.fallback import FallbackEngine
from serving.metrics import Metrics
from serving.operations.events import EventLog


class EngineGauges:
    def __init__(self, metrics: Metrics, events: EventLog) -> None:
        self._metrics = metrics
        self._events = events
        self._dead: set[str] = set()
        """Models whose engine was dead when it was last looked at: a death is counted once."""

    def show(self, engine: Engine, cap_of: Callable[[str], AdmissionQueue]) -> None:
        # a fallback that answers is no reason to call the engine ready
        status = engine.main_status() if isinstance(engine, FallbackEngine) else engine.status()
        for model in engine.models():
            cap = cap_of(model.name)
            self._metrics.set("wattgate_running_requests", cap.running, model.name)
            self._metrics.set("wattgate_waiting_requests", cap.waiting, model.name)
            self._metrics.set("wattgate_concurrency_cap", cap.cap, model.name)
            self._metrics.set("wattgate_engine_ready", 1 if status.ready else 0, model.name)
        names = {model.name for model in engine.models()}
        if not status.fatal:
            self._dead -= names
            return
        dead = [model for model in engine.models() if model.name not in self._dead]
        tell_death(dead, status.reason, self._metrics, self._events)
        self._dead |= names


def tell_death(models: Iterable[EngineModel], reason: str, metrics: Metrics, events: EventLog) -> None:
    """Of the engine that serves these: adapters die with the model that they are over, one engine is one death."""
    for model in models:
        if model.parent is None:
            metrics.add("wattgate_engine_deaths_total", 1, model.name)
            events.record("model", f"the engine of {model.name} died and is replaced: {reason}", model.name)
