"""The controller in a whole gateway: the simulated engine under load, its decisions read over the API."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = pytest.mark.ray

CONFIG = """
engine: {kind: simulated}
cache: {tier: off}
server: {port: 0}
admission: {max_concurrency: 4}
control: {mode: on, slo: ['itl_p95<=200ms'], window_seconds: 1, highest_cap: 24}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    path: Path = tmp_path_factory.mktemp("control") / "gateway.yaml"
    path.write_text(CONFIG)
    gateway = GatewayProcess("--config", str(path)).wait_ready()
    yield gateway
    gateway.stop()


def test_the_cap_rises_under_load_and_the_api_says_why(gateway: GatewayProcess) -> None:
    over = threading.Event()

    def client(number: int) -> None:
        with httpx.Client(base_url=gateway.url, timeout=120) as http:
            asked = 0
            while not over.is_set():
                asked += 1
                body = {
                    "model": "simulated-1b",
                    "messages": [{"role": "user", "content": f"{number} {asked}"}],
                    "max_tokens": 20,
                    "ignore_eos": True,
                }
                http.post("/v1/chat/completions", json=body).raise_for_status()

    def moved() -> list[dict[str, Any]]:
        data = httpx.get(f"{gateway.url}/v1/control", timeout=30).json()["data"]
        return [line for line in data if line["applied"]]

    clients = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for thread in clients:
        thread.start()
    try:
        first = until(moved, 60, "a move of the cap")[0]
    finally:
        over.set()
        for thread in clients:
            thread.join()
    assert (first["from"], first["to"]) == (4, 5)
    assert first["why"] == "requests wait and the bounds hold with room"
    assert 0 < first["seen"]["itl_p95_seconds"] < 0.2
    last = moved()[-1]["to"]
    assert until(lambda: gateway.metric("wattgate_concurrency_cap") == moved()[-1]["to"], what="the cap in the metrics")
    assert gateway.metric("wattgate_control_wanted_cap") == last
    assert gateway.metric("wattgate_control_windows_total", kept="yes") >= 1
    events = httpx.get(f"{gateway.url}/v1/events", timeout=30).json()["data"]
    assert any(event["kind"] == "cap" and event["text"].startswith("cap 4 -> 5: ") for event in events)
