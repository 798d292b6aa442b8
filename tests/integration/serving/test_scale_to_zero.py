"""An idle engine is unloaded; hits do not wake it, and the next request does."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = [pytest.mark.ray, pytest.mark.redis]


@pytest.fixture(scope="module")
def gateway(changing_gateway: GatewayProcess) -> GatewayProcess:
    return changing_gateway


def ask(gateway: GatewayProcess, text: str) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    body = {"model": "simulated-1b", "messages": messages, "temperature": 0}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60)
    answer.raise_for_status()
    return answer


def state(gateway: GatewayProcess) -> str:
    answer = httpx.get(f"{gateway.url}/readyz", timeout=30)
    assert answer.status_code == 200
    return str(answer.json()["status"])


def test_idle_it_sleeps_hits_leave_it_asleep_and_a_request_wakes_it(gateway: GatewayProcess) -> None:
    ask(gateway, "Kept before the sleep.")
    woken = gateway.metric("wattgate_engine_wake_seconds_count")
    until(lambda: state(gateway) == "asleep", what="sleep")
    until(lambda: gateway.metric("wattgate_engine_asleep") == 1, what="its series")
    assert gateway.metric("wattgate_engine_ready") == 1
    assert ask(gateway, "Kept before the sleep.").headers["x-cache"] == "HIT-EXACT"
    assert state(gateway) == "asleep"
    assert httpx.get(f"{gateway.url}/v1/models", timeout=30).json()["data"][0]["id"] == "simulated-1b"
    slept = gateway.metric("wattgate_energy_joules_total")
    until(lambda: gateway.metric("wattgate_energy_joules_total") > slept, what="a window of its sleep in the books")
    assert ask(gateway, "Something new.").headers["x-cache"] == "MISS"
    assert gateway.metric("wattgate_engine_wake_seconds_count") == woken + 1
    assert gateway.metric("wattgate_engine_asleep_seconds_total") > 0
    for kind in ("expected", "metered"):
        assert gateway.metric("wattgate_engine_asleep_joules_total", kind=kind) > 0
    texts = [event["text"] for event in httpx.get(f"{gateway.url}/v1/events", timeout=30).json()["data"]]
    assert any("was unloaded after 3 s without a request" in text for text in texts)
    assert any("is loaded again after" in text and "saved" in text for text in texts)


def test_after_a_sleep_the_books_still_balance(gateway: GatewayProcess) -> None:
    ident = ask(gateway, "Metered after the sleep.").headers["x-wattgate-receipt"]
    until(
        lambda: httpx.get(f"{gateway.url}/v1/receipts/{ident}", timeout=30).status_code == 200, what="the final receipt"
    )
    assert gateway.metric("wattgate_books_difference_joules") == 0
