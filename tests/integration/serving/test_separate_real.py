"""The real vLLM with a LoRA adapter, beside a simulated model, in one gateway."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest

from serving.bundled_model import prepare_bundled_model
from tests.integration.serving.engine_core import is_core
from tests.integration.serving.gateway_process import GatewayProcess, until
from tests.integration.serving.lora import random_adapter

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.engine, pytest.mark.redis]

CONFIG = """
server: {{port: 0}}
models:
  smollm:
    engine:
      kind: vllm
      vllm: {{max_batch: 8, max_context_tokens: 1024, kv_cache_gib: 1, lora: {{smollm-tuned: {adapter}}}}}
    admission: {{max_concurrency: 8}}
    fallback: {{model: simulated}}
  simulated:
    engine: {{kind: simulated}}
"""
ASK = "What is the capital of France?"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("separate")
    adapter = random_adapter(folder / "adapter", prepare_bundled_model(lambda _: None), seed=3)
    (folder / "gateway.yaml").write_text(CONFIG.format(adapter=adapter))
    made = GatewayProcess("--config", str(folder / "gateway.yaml")).wait_ready()
    yield made
    made.stop()


def ask(gateway: GatewayProcess, model: str, text: str = ASK, **more: Any) -> Any:
    return gateway.client().chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": text}], temperature=0, max_tokens=24, **more
    )


def content(raw: Any) -> str:
    return str(raw.parse().choices[0].message.content)


def test_models_and_adapters_are_listed_with_their_parent(gateway: GatewayProcess) -> None:
    listed = httpx.get(f"{gateway.url}/v1/models").json()["data"]
    assert [(model["id"], model.get("parent")) for model in listed] == [
        ("smollm", None),
        ("smollm-tuned", "smollm"),
        ("simulated", None),
        ("all-MiniLM-L6-v2", None),
    ]


def test_an_adapter_answers_otherwise_than_its_model_and_the_cache_keeps_them_apart(gateway: GatewayProcess) -> None:
    first = {model: ask(gateway, model) for model in ("smollm", "smollm-tuned")}
    assert "Paris" in content(first["smollm"])
    assert content(first["smollm-tuned"]) != content(first["smollm"])
    assert {raw.headers["x-cache"] for raw in first.values()} == {"MISS"}
    for model, raw in first.items():
        assert raw.parse().model == model
        again = ask(gateway, model)
        # answers that max_tokens cut are not kept
        kept = raw.parse().choices[0].finish_reason == "stop"
        assert again.headers["x-cache"] == ("HIT-EXACT" if kept else "MISS")
        assert content(again) == content(raw)


def test_the_books_know_each_by_its_name(gateway: GatewayProcess) -> None:
    receipts = {}
    for model in ("smollm", "smollm-tuned", "simulated"):
        raw = ask(gateway, model, f"Tell me of {model}.", extra_headers={"cache-control": "no-store"})
        receipts[model] = raw.parse().usage.model_dump()["wattgate"]
    assert {model: receipt["method"] for model, receipt in receipts.items()}["simulated"] == "simulated"
    for model in receipts:
        until(lambda model=model: gateway.metric("wattgate_request_joules_total", model=model) > 0, what="its joules")
        assert receipts[model]["flops_decode"] > 0
    assert gateway.metric("wattgate_books_difference_joules") == 0


def test_with_the_engine_core_dead_the_fallback_answers_until_it_is_back(gateway: GatewayProcess) -> None:
    (core,) = filter(is_core, psutil.Process(gateway.process.pid).children(recursive=True))
    os.kill(core.pid, signal.SIGKILL)
    fallen = until(lambda: _fallback(gateway), what="the fallback's answer")
    assert fallen == "simulated"
    until(lambda: _fallback(gateway) == "", timeout_seconds=240, what="the model's own answer")


def _fallback(gateway: GatewayProcess) -> str | None:
    """Who answered in its place; "" where nobody; None where there was no answer."""
    try:
        raw = ask(gateway, "smollm", extra_headers={"cache-control": "no-cache"})
    except openai.APIStatusError:
        return None
    return str(raw.headers.get("x-wattgate-fallback", ""))
