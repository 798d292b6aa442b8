"""The live cap of a whole gateway over the API: the controller's decisions under load, and a cap held by hand."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def gateway(changing_gateway: GatewayProcess) -> GatewayProcess:
    return changing_gateway


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
    assert first["seen"]["itl_p95_seconds"] > 0

    def shown() -> bool:
        caps = {gateway.metric(f"wattgate_{name}_cap") for name in ("concurrency", "control_wanted")}
        return caps == {moved()[-1]["to"]}

    until(shown, what="the cap in the metrics")
    assert gateway.metric("wattgate_control_windows_total", kept="yes") >= 1
    events = httpx.get(f"{gateway.url}/v1/events", timeout=30).json()["data"]
    assert any(event["kind"] == "cap" and event["text"].startswith("cap 4 -> 5: ") for event in events)


def test_a_cap_that_the_controller_moves_is_held_only_if_it_is_told_to_pause(gateway: GatewayProcess) -> None:
    refused = httpx.put(f"{gateway.url}/v1/control/caps", json={"cap": 3}, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "controller_on")
    httpx.put(
        f"{gateway.url}/v1/control/caps", json={"cap": 3, "pause_controller": True}, timeout=30
    ).raise_for_status()
    until(lambda: gateway.metric("wattgate_concurrency_cap") == 3, what="the held cap")
    httpx.delete(f"{gateway.url}/v1/control/caps", timeout=30).raise_for_status()
    until(lambda: gateway.metric("wattgate_concurrency_cap") != 3, what="the controller's cap")


HELD = """
engine: {kind: simulated}
cache: {tier: off}
server: {port: 0, replicas: 2}
admission: {max_concurrency: 4}
access: {api_keys: {a: a-tenants-key-of-sufficient-length}, admin_key: an-admin-key-of-sufficient-length}
"""


@pytest.mark.long
def test_a_held_cap_is_in_force_in_every_replica_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(HELD)
    admin = {"authorization": "Bearer an-admin-key-of-sufficient-length"}
    gateway = GatewayProcess("--config", str(path)).wait_ready()
    page = f"{gateway.url}/v1/control/caps"

    def caps() -> float:
        return gateway.metric("wattgate_concurrency_cap", headers=admin)

    try:
        until(lambda: caps() == 8, what="the configured caps")
        tenant = {"authorization": "Bearer a-tenants-key-of-sufficient-length"}
        assert httpx.put(page, json={"cap": 3}, headers=tenant, timeout=30).status_code == 403
        held = httpx.put(page, json={"cap": 3, "by": "a test"}, headers=admin, timeout=30).raise_for_status().json()
        assert (held["configured_cap"], held["held"]["cap"]) == (4, 3)
        until(lambda: caps() == 6, what="the held cap in both replicas")
        other = httpx.put(page, json={"cap": 2, "by": "another"}, headers=admin, timeout=30)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "cap_held")
        httpx.delete(page, headers=admin, timeout=30).raise_for_status()
        until(lambda: caps() == 8, what="the configured caps again")
        moves = httpx.get(f"{gateway.url}/v1/control", headers=admin, timeout=30).json()["data"]
        assert sorted(line["why"] for line in moves) == ["held by a test"] * 2 + ["no longer held"] * 2
        assert len({line["replica"] for line in moves}) == 2
    finally:
        gateway.stop()
