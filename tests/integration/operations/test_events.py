"""Events of a running gateway: what is served."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import httpx
import pytest

from tests.integration.operations.load import chat
from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = [pytest.mark.ray, pytest.mark.redis]


def test_the_model_that_is_served_is_an_event(gateway: GatewayProcess) -> None:
    (event,) = httpx.get(f"{gateway.url}/v1/events?since=1", timeout=30).json()["data"]
    assert event["kind"] == "model"
    assert event["model"] == "simulated-1b"
    assert event["text"].startswith("simulated-1b is served (simulated, replica-")


def test_longer_prompts_and_a_cleared_cache_are_events_that_are_counted(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("engine: {kind: simulated}\ntelemetry: {drift_window_requests: 60}\n")
    gateway = GatewayProcess("--config", str(config), "--port", "0").wait_ready()
    try:
        # two windows of longer ones
        for words in (5, 200, 201):
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                asked = [
                    pool.submit(chat, gateway.url, f"{number} {words} " + "word " * (words + number % 7), tokens=4)
                    for number in range(60)
                ]
                assert {done.result() for done in asked} == {"MISS"}
        assert httpx.delete(f"{gateway.url}/v1/cache?all=true", timeout=30).status_code == 200

        def told() -> list[dict[str, str]]:
            found = httpx.get(f"{gateway.url}/v1/events?since=1", timeout=30).json()["data"]
            return found if {"drift", "cache_epoch"} <= {event["kind"] for event in found} else []

        events = until(told, what="events of drift and of the cleared cache")
        drift = [event for event in events if event["kind"] == "drift"]
        assert any(event["text"].startswith("prompt length, simulated-1b: ") for event in drift)
        assert {event["model"] for event in drift} == {"simulated-1b"}
        (reference,) = httpx.get(f"{gateway.url}/v1/drift/references", timeout=30).json()["data"]
        assert (reference["model"], reference["requests"]) == ("simulated-1b", 60)
        (reference,) = httpx.delete(f"{gateway.url}/v1/drift/references", timeout=30).json()["data"]
        assert reference["requests"] == 0
        assert gateway.metric("wattgate_events_total", kind="cache_epoch") == 1
        assert gateway.metric("wattgate_drift_ratio", what="prompt length", statistic="KS") > 1
        assert "\nray_" not in httpx.get(f"{gateway.url}/metrics", timeout=30).text
    finally:
        gateway.stop()


def test_an_event_is_a_series_with_its_text_for_the_dashboards_annotations(gateway: GatewayProcess) -> None:
    (event,) = httpx.get(f"{gateway.url}/v1/events?since=1", timeout=30).json()["data"]
    told = {"kind": "model", "model": "simulated-1b", "text": event["text"]}
    assert gateway.metric("wattgate_event_timestamp_seconds", **told) == pytest.approx(event["at_seconds"])
