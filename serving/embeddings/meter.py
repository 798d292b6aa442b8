"""The gateway's view of work that an encoder's process reports itself."""

from __future__ import annotations

from collections.abc import Iterable

from metering.settlement import Rates
from metering.work import Served, WorkRecord
from serving.embeddings.profile import encoder_profile
from serving.engines.base import EngineModel
from serving.meter_link import MeterLink, Trace


class WitnessedWork(MeterLink):
    """A ``MeterLink`` that books nothing: whoever executes work reports it, also for a client that has gone.

    Receipts are made here, at the rates that come with each answer; what was served is the gateway's to tell.
    """

    def __init__(self, main: MeterLink) -> None:
        super().__init__("witness", main.client, flush_seconds=1.0, on_fault=lambda _: None)
        self._main = main

    def know(self, models: Iterable[EngineModel]) -> None:
        """The models, for the FLOPs of their receipts."""
        self.profiles = {model.name: encoder_profile(model.name, model.config) for model in models}

    def learn(self, rates: Rates) -> None:
        self.rates = rates

    def trace(self, request_id: str, tenant: str, model: str) -> Trace:
        return Trace(request_id, tenant, model, _reported_already)

    def finished(self, request_id: str, cache: str = "MISS") -> None:
        """The encoder says so itself."""

    def served(self, answer: Served) -> None:
        self._main.served(answer)


def _reported_already(record: WorkRecord) -> None:
    pass
