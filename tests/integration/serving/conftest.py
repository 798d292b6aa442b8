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


@pytest.fixture(scope="session")
def simulated_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """With embeddings, whose texts are gathered for long: requests sent at once share a pass on any machine."""
    file = tmp_path_factory.mktemp("simulated") / "gateway.yaml"
    file.write_text(
        "engine: {kind: simulated}\nserver: {port: 0}\ncache: {tier: 'off'}\n"
        "embeddings: {enabled: true, batch_wait_seconds: 0.5}\n"
    )
    gateway = GatewayProcess("--config", str(file)).wait_ready()
    yield gateway
    gateway.stop()


@pytest.fixture(scope="session")
def changing_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Its controller moves the cap, and its engine sleeps after three idle seconds."""
    file = tmp_path_factory.mktemp("changing") / "gateway.yaml"
    file.write_text(
        "engine: {kind: simulated, unload_after_seconds: 3}\nserver: {port: 0}\nadmission: {max_concurrency: 4}\n"
        "control: {mode: on, slo: ['itl_p95<=200ms'], window_seconds: 1, highest_cap: 24}\n"
    )
    gateway = GatewayProcess("--config", str(file)).wait_ready()
    yield gateway
    gateway.stop()
