from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from metering.work import EngineSteps
from serving.engines.settings import EngineSettings, VllmSettings
from serving.engines.vllm import VllmEngine
from tests.bench.metering.stack import Stack

SETTINGS = EngineSettings(kind="vllm", vllm=VllmSettings(max_batch=16, max_context_tokens=2048, kv_cache_gib=1))


class StepHook:
    """The engine is made before the stack that takes its steps."""

    def __init__(self) -> None:
        self.stack: Stack | None = None

    def __call__(self, steps: EngineSteps) -> None:
        if self.stack is not None:
            self.stack.link.steps(steps)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def step_hook() -> StepHook:
    return StepHook()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm(step_hook: StepHook) -> AsyncIterator[VllmEngine]:
    """One engine with the bundled model, shared by tests that leave it whole."""
    engine = VllmEngine(SETTINGS, step_hook, lambda _: None)
    await engine.start()
    yield engine
    await engine.close()
