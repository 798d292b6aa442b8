"""Events of a running gateway: what is served."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.serving.gateway_process import GatewayProcess

pytestmark = [pytest.mark.ray, pytest.mark.redis]


def test_the_model_that_is_served_is_an_event(gateway: GatewayProcess) -> None:
    (event,) = httpx.get(f"{gateway.url}/v1/events?since=1", timeout=30).json()["data"]
    assert event["kind"] == "model"
    assert event["model"] == "simulated-1b"
    assert event["text"].startswith("simulated-1b is served (simulated, replica-")
