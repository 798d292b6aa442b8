from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from serving.admission.queue import AdmissionQueue
from serving.engines.base import EngineModel, EngineStatus
from serving.metrics import Metrics
from serving.operations.events import EventLog
from serving.placement.engine_gauges import EngineGauges
from tests.unit.serving.fakes import HeldEngine

DEAD = EngineStatus(ready=False, reason="the process ended", fatal=True)


class WithAdapter(HeldEngine):
    def models(self) -> tuple[EngineModel, ...]:
        return (self.model, EngineModel(f"{self.model.name}-adapter", parent=self.model.name))


class Shown:
    def __init__(self, folder: Path, *engines: HeldEngine) -> None:
        self._registry = CollectorRegistry()
        self.events = EventLog(folder / "events.jsonl")
        self._gauges = EngineGauges(Metrics(self._registry), self.events)
        self._cap = AdmissionQueue(3, 4)
        self._engines = engines

    def look(self) -> None:
        for engine in self._engines:
            self._gauges.show(engine, lambda _: self._cap)

    def value(self, name: str, model: str) -> float | None:
        return self._registry.get_sample_value(name, {"model": model})

    def deaths(self, model: str) -> float | None:
        return self.value("wattgate_engine_deaths_total", model)


def test_each_model_whose_engine_dies_is_counted_once(tmp_path: Path) -> None:
    one, other, alive = HeldEngine("one"), HeldEngine("other"), HeldEngine("alive")
    shown = Shown(tmp_path, one, other, alive)
    one.now = DEAD
    shown.look()
    other.now = DEAD
    shown.look()
    assert [shown.deaths(model) for model in ("one", "other", "alive")] == [1.0, 1.0, None]
    told = [(event.model, event.text) for event in shown.events.read()]
    assert told == [
        (model, f"the engine of {model} died and is replaced: the process ended") for model in ("one", "other")
    ]


def test_an_engine_that_comes_back_and_dies_again_has_died_twice(tmp_path: Path) -> None:
    engine = HeldEngine()
    shown = Shown(tmp_path, engine)
    for status in (DEAD, DEAD, EngineStatus(ready=True), DEAD, DEAD):
        engine.now = status
        shown.look()
    assert shown.deaths("m") == 2.0


def test_an_engine_with_adapters_dies_once(tmp_path: Path) -> None:
    engine = WithAdapter()
    engine.now = DEAD
    shown = Shown(tmp_path, engine)
    shown.look()
    assert (shown.deaths("m"), shown.deaths("m-adapter")) == (1.0, None)
    assert shown.value("wattgate_engine_ready", "m-adapter") == 0.0


def test_the_queue_and_readiness_are_shown_under_each_models_name(tmp_path: Path) -> None:
    shown = Shown(tmp_path, HeldEngine())
    shown.look()
    names = ("running_requests", "waiting_requests", "concurrency_cap", "engine_ready")
    assert [shown.value(f"wattgate_{name}", "m") for name in names] == [0.0, 0.0, 3.0, 1.0]
