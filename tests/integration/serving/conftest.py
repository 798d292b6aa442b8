from __future__ import annotations

import pytest

from tests.integration.conftest import StartShared
from tests.integration.serving.gateway_process import GatewayProcess


@pytest.fixture(scope="session")
def real_gateway(start_shared: StartShared) -> GatewayProcess:
    """Ray Serve, HAProxy, Redis 8 and vLLM with the bundled model."""
    return start_shared("--port", "0")


@pytest.fixture(scope="session")
def simulated_gateway(start_shared: StartShared, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    """With embeddings, whose texts are gathered for long: requests sent at once share a pass on any machine."""
    file = tmp_path_factory.mktemp("simulated") / "gateway.yaml"
    file.write_text(
        "engine: {kind: simulated}\nserver: {port: 0}\ncache: {tier: 'off'}\n"
        "embeddings: {enabled: true, batch_wait_seconds: 0.5}\n"
    )
    return start_shared("--config", str(file))


@pytest.fixture(scope="session")
def changing_gateway(start_shared: StartShared, tmp_path_factory: pytest.TempPathFactory) -> GatewayProcess:
    """Its controller moves the cap, and its engine sleeps after three idle seconds."""
    file = tmp_path_factory.mktemp("changing") / "gateway.yaml"
    file.write_text(
        "engine: {kind: simulated, unload_after_seconds: 3}\nserver: {port: 0}\nadmission: {max_concurrency: 4}\n"
        "control: {mode: on, slo: ['itl_p95<=1s'], window_seconds: 1, highest_cap: 24}\n"
    )
    return start_shared("--config", str(file))
