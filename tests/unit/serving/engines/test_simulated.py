from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from metering.work import EngineSteps, Method, WorkRecord
from serving.engines.base import EngineRequest
from serving.engines.settings import EngineSettings, SimulatedSettings
from serving.engines.simulated import FINGERPRINT, SIMULATED_NAME, SimulatedEngine
from serving.errors import EngineUnavailable
from tests.unit.serving.engines.contract import EngineContract, EngineEndContract, EngineKit, totals
from tests.unit.serving.fakes import ManualClock

FAST = SimulatedSettings(prefill_seconds_per_token=0.0, step_seconds=0.0005, step_seconds_per_sequence=0.0)


class TestSimulatedEngine(EngineContract, EngineEndContract):
    @pytest.fixture
    async def kit(self) -> AsyncIterator[EngineKit]:
        engine = SimulatedEngine(EngineSettings(kind="simulated", simulated=FAST), lambda _: None)
        await engine.start()
        yield EngineKit(engine, SIMULATED_NAME, too_long_param="messages")
        await engine.close()


class Timed:
    """An engine whose time passes only by its own delays."""

    def __init__(self, **settings: float) -> None:
        self.clock = ManualClock()
        self.steps: list[EngineSteps] = []
        self.engine = SimulatedEngine(
            EngineSettings(kind="simulated", simulated=SimulatedSettings(**settings)),
            self.steps.append,
            sleep=self.clock.sleep,
            clock=self.clock,
            wall=lambda: 0.0,
        )

    async def run(self, **payload: object) -> tuple[bytes, list[WorkRecord]]:
        work: list[WorkRecord] = []
        body = {"model": SIMULATED_NAME, "prompt": "one two three four", **payload}
        async with self.engine.run(
            EngineRequest("r", "/v1/completions", body, SIMULATED_NAME, "t"), work.append
        ) as answer:
            frames = [frame async for frame in answer.frames]
        return b"".join(frames), work


async def test_the_first_token_takes_its_time_by_prompt_token_and_each_other_a_step() -> None:
    timed = Timed(prefill_seconds_per_token=0.1, step_seconds=0.02)
    await timed.engine.start()
    began = timed.clock()
    _, work = await timed.run(max_tokens=6, ignore_eos=True)
    prefill, decode = work
    assert prefill.ended_seconds - began == pytest.approx(0.4)
    assert decode.ended_seconds - decode.started_seconds == pytest.approx(5 * 0.02)
    assert all(record.method is Method.SIMULATED for record in work)


async def test_long_answers_are_booked_while_they_run() -> None:
    timed = Timed(step_seconds=0.2)
    await timed.engine.start()
    _, work = await timed.run(max_tokens=20, ignore_eos=True)
    assert len(work) >= 6
    assert totals(work) == (4, 0, 19)
    assert max(record.ended_seconds - record.started_seconds for record in work) <= 0.7


async def test_steps_tell_how_far_sequences_shared_them() -> None:
    timed = Timed()
    await timed.engine.start()
    await timed.run(max_tokens=10, ignore_eos=True, n=4)
    assert sum(steps.sequence_steps for steps in timed.steps) == 40
    assert sum(steps.steps for steps in timed.steps) == 10


async def test_every_answer_says_that_it_is_simulated() -> None:
    timed = Timed()
    await timed.engine.start()
    for stream in (False, True):
        raw, _ = await timed.run(max_tokens=3, stream=stream)
        assert FINGERPRINT.encode() in raw


async def test_the_seed_decides_the_answer() -> None:
    answers = []
    for seed in (1, 1, 2):
        timed = Timed(seed=seed)
        await timed.engine.start()
        answers.append((await timed.run(max_tokens=12))[0])
    assert answers[0] == answers[1] != answers[2]


async def test_an_engine_that_is_not_started_is_unavailable() -> None:
    timed = Timed()
    assert timed.engine.models() == ()
    with pytest.raises(EngineUnavailable):
        await timed.run()
