"""A small world for the node meter: a model with round numbers, records, batches, scripted power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings

from metering.node import NodeMeter
from metering.node_settings import NodeSettings
from metering.power.base import Boundary, Component, ComponentReading, PowerUnavailable
from metering.power.scripted import ConstantMeter, ScriptedMeter
from metering.weights import ExecutedWork
from metering.work import EngineSteps, WorkBatch, WorkRecord

# Laws, not timings: a slow machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

GPU = Component("gpu", Boundary.ACCELERATOR)
HOST = Component("host", Boundary.HOST)


@dataclass(frozen=True)
class RoundModel:
    """1,000 FLOPs and 10 bytes of cache a token, 5,000 bytes of weights a step."""

    name: str = "m"
    peak_flops: float | None = 1e6
    bandwidth_bytes_per_second: float | None = 1e5
    weights: float | None = 5000.0
    known: bool = True

    def step_weight_bytes(self, sequences: float) -> float | None:
        return self.weights

    def work(self, record: WorkRecord) -> ExecutedWork | None:
        if not self.known:
            return None
        return ExecutedWork(
            1000 * record.prefill_tokens,
            1000 * record.decode_tokens,
            10.0 * record.prefill_tokens,
            10.0 * record.decode_tokens,
            self.weights or 0.0,
        )


class World:
    gpu, host = GPU, HOST
    model = RoundModel
    settings = NodeSettings

    @staticmethod
    def record(request: str, start: float, end: float, **work: Any) -> WorkRecord:
        fields: dict[str, Any] = {"model": "m", "tenant": "t", "decode_tokens": 10, "first_context_tokens": 5}
        return WorkRecord(request_id=request, started_seconds=start, ended_seconds=end, **{**fields, **work})

    @staticmethod
    def batch(
        sequence: int,
        watermark: float,
        records: Sequence[WorkRecord] = (),
        finished: Sequence[str] = (),
        source: str = "a",
        steps: Sequence[EngineSteps] = (),
    ) -> WorkBatch:
        return WorkBatch(source, sequence, watermark, tuple(records), tuple(steps), tuple(finished))

    @staticmethod
    def constant(gpu: float = 100.0, host: float = 20.0, **options: Any) -> ConstantMeter:
        return ConstantMeter({GPU: gpu, HOST: host}, **options)

    @staticmethod
    def script(entries: Sequence[int | tuple[int, int] | None], idle_watts: float | None = None) -> ScriptedMeter:
        """Cumulative nanojoules of the GPU by reading; None fails, (nanojoules, epoch) starts a new epoch."""

        def entry(value: int | tuple[int, int] | None) -> Any:
            if value is None:
                return PowerUnavailable("the meter is away")
            nanojoules, epoch = value if isinstance(value, tuple) else (value, 0)
            return {"gpu": ComponentReading(nanojoules, idle_watts, epoch)}

        return ScriptedMeter([GPU], [entry(value) for value in entries])

    @staticmethod
    def node(*meters: Any, model: Any = None, now: float = 0.0, load_models: Any = (), **settings: Any) -> NodeMeter:
        node = NodeMeter(
            meters, NodeSettings(**settings), load_models=load_models, clock=lambda: now, wall_clock=lambda: 1.7e9
        )
        node.register(model or RoundModel())
        node.start(now)
        return node


@pytest.fixture
def world() -> type[World]:
    return World
