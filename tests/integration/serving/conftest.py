from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.serving.gateway_process import GatewayProcess


@pytest.fixture(scope="session")
def real_gateway() -> Iterator[GatewayProcess]:
    """Ray Serve, HAProxy, Redis 8 and vLLM with the bundled model."""
    gateway = GatewayProcess("--port", "0").wait_ready()
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def simulated_gateway() -> Iterator[GatewayProcess]:
    gateway = GatewayProcess("--engine", "simulated", "--port", "0").wait_ready()
    yield gateway
    gateway.stop()
