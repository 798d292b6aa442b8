"""The real vLLM behind gateway and node meter: the books balance, and the FLOPs are vLLM's."""

from __future__ import annotations

import pytest

from serving.config_sources import load_config
from serving.engines.vllm import VllmEngine
from tests.bench.metering.mixed import mixed_run
from tests.bench.metering.stack import stack
from tests.integration.engines.conftest import StepHook

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="session"),
    # torch's and vLLM's own deprecations are not ours to end
    pytest.mark.filterwarnings("default"),
]


async def test_a_mixed_run_balances_to_the_nanojoule_and_agrees_with_vllms_own_flops(
    vllm: VllmEngine, step_hook: StepHook
) -> None:
    config = load_config(None, {"admission.max_concurrency": 16, "engine.vllm.max_batch": 16}, {}).config
    async with stack(vllm, config) as made:
        step_hook.stack = made
        run = await mixed_run(made, requests=40, clients=8)
    step_hook.stack = None
    assert run["difference_nanojoules"] == 0
    assert run["balanced"]
    assert run["open_requests"] == 0
    assert run["meter_nanojoules"] > run["receipts_nanojoules"] > 0
    assert 0 < run["idle_ratio"] < 1
    assert set(run["receipts_by_verdict"]) == {"MISS", "BYPASS"}
    assert any(how.startswith("cached: HIT") for how in run["ended"])
    assert any(how.startswith("error: refused 400") for how in run["ended"])
    assert run["ended"].get("cancelled: left", 0) > 0
    assert run["flops"]["receipts_causal"] == run["flops"]["records_causal"]
    # vLLM bills the step under way of a sequence whose client has gone; we book what was seen, and a prefill that was
    # cut short before its first token as a whole step: the truth of those is between none and all of it
    assert run["flops"]["seen_over_vllm"] < 1.01
    assert run["flops"]["full_over_vllm"] > 0.99
