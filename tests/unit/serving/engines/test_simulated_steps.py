"""The simulated engine by a fitted model takes the time that the simulator says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from metering.work import EngineSteps, WorkRecord
from serving.engines.base import EngineRequest
from serving.engines.settings import EngineSettings, SimulatedSettings
from serving.engines.simulated import SIMULATED_NAME, SimulatedEngine
from serving.tuning.engine_model import EngineModel, Plane
from serving.tuning.simulation import Limits, simulate
from serving.tuning.workload import Workload
from tests.unit.serving.engines.contract import EngineContract, EngineEndContract, EngineKit, totals, until
from tests.unit.serving.fakes import ManualClock

QUICK = EngineModel("m", "d", (Plane(0.0005),))
SLOW = EngineModel("m", "d", (Plane(0.01, 0.002, 0.0005, 1e-6, 1e-8),))
PAGES = "/v1/completions"


def settings(folder: Path, model: EngineModel, **more: int) -> EngineSettings:
    model.save(folder / "model.json")
    return EngineSettings(
        kind="simulated", simulated=SimulatedSettings(engine_model=str(folder / "model.json"), **more)
    )


class TestFittedEngine(EngineContract, EngineEndContract):
    @pytest.fixture
    async def kit(self, tmp_path: Path) -> AsyncIterator[EngineKit]:
        engine = SimulatedEngine(settings(tmp_path, QUICK), lambda _: None)
        await engine.start()
        yield EngineKit(engine, SIMULATED_NAME, too_long_param="messages")
        await engine.close()


class Batch:
    """A fitted engine on a clock that only its own steps move."""

    def __init__(self, folder: Path, model: EngineModel = SLOW, **more: int) -> None:
        self.clock = ManualClock()
        self.steps: list[EngineSteps] = []
        self.work: list[WorkRecord] = []
        self.engine = SimulatedEngine(
            settings(folder, model, **more), self.steps.append, sleep=self.clock.sleep, clock=self.clock
        )

    async def run(self, prompt: int, output: int, name: str = "", **fields: int) -> tuple[float, float]:
        """Seconds to the first token, and to the last, as the engine saw them."""
        began = self.clock()
        words = " ".join(f"{name}{number}" for number in range(prompt))
        payload = {"prompt": words, "max_tokens": output, "ignore_eos": True, "stream": True, **fields}
        mine: list[WorkRecord] = []
        request = EngineRequest(f"r{name}", PAGES, payload, SIMULATED_NAME, "t")
        async with self.engine.run(request, mine.append) as answer:
            async for _ in answer.frames:
                pass
            first = answer.first_token_seconds()
        self.work += mine
        assert first is not None
        return first - began, max(record.ended_seconds for record in mine) - began


def at_once(prompts: list[int], outputs: list[int]) -> Workload:
    count = len(prompts)
    return Workload(
        np.zeros(count), np.array(prompts), np.array(outputs), np.zeros(count, dtype=int), np.full(count, -1)
    )


@pytest.mark.parametrize(
    ("prompts", "outputs", "memory"),
    [
        ([100] * 16, [5] * 16, None),
        ([3000, 50, 700], [4, 1, 30], None),
        ([40, 400, 30, 90], [20, 3, 9, 14], 450),
    ],
)
async def test_requests_at_once_take_the_simulators_time(
    tmp_path: Path, prompts: list[int], outputs: list[int], memory: int | None
) -> None:
    model = EngineModel("m", "d", SLOW.planes, kv_tokens=memory)
    batch = Batch(tmp_path, model)
    await batch.engine.start()
    seen = await asyncio.gather(
        *(batch.run(*lengths, f"p{i}-") for i, lengths in enumerate(zip(prompts, outputs, strict=True)))
    )
    expected = simulate(at_once(prompts, outputs), model, Limits(cap=64))
    assert [first for first, _ in seen] == pytest.approx(expected.ttft_seconds)
    assert [end for _, end in seen] == pytest.approx(expected.e2e_seconds)
    assert totals(batch.work) == (sum(prompts), 0, sum(outputs) - len(outputs))
    assert sum(steps.sequence_steps for steps in batch.steps) == sum(outputs)
    await batch.engine.close()


async def test_a_request_that_goes_leaves_the_batch_to_the_others(tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    await batch.engine.start()
    gone = asyncio.create_task(batch.run(50, 1000, "a"))
    stays = asyncio.create_task(batch.run(50, 10, "b"))
    await until(lambda: batch.clock() > 1000.5)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await stays
    assert batch.engine.status().running == 0
    _, alone = await batch.run(50, 10, "c")
    one = simulate(at_once([50], [10]), SLOW, Limits())
    assert alone == pytest.approx(one.e2e_seconds[0])
    await batch.engine.close()


async def test_choices_are_sequences_of_the_batch(tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    await batch.engine.start()
    first, end = await batch.run(100, 2, n=3)
    assert end - first == pytest.approx(SLOW.step_seconds(3, 0, 3 * 101))
    assert sum(steps.sequence_steps for steps in batch.steps) == 6
    await batch.engine.close()


async def test_a_known_beginning_is_not_computed_again(tmp_path: Path) -> None:
    batch = Batch(tmp_path, prefix_cache_tokens=1000)
    await batch.engine.start()
    await batch.run(100, 1, "a")
    first, _ = await batch.run(100, 1, "a")
    # 6 blocks of 16 are known
    assert first == pytest.approx(SLOW.step_seconds(0, 4, 0, 4 * (96 + 5 / 2)))
    await batch.engine.close()
