from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from serving.engines.settings import EngineSettings, VllmSettings
from serving.engines.vllm import VllmEngine

SETTINGS = EngineSettings(kind="vllm", vllm=VllmSettings(max_batch=16, max_context_tokens=2048, kv_cache_gib=1))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm() -> AsyncIterator[VllmEngine]:
    """One engine with the bundled model, shared by tests that leave it whole."""
    engine = VllmEngine(SETTINGS, lambda _: None, lambda _: None)
    await engine.start()
    yield engine
    await engine.close()
