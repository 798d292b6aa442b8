"""schemathesis against ``/openapi.json`` of a running gateway: no 5xx, no status, header or body that is not told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks

from serving.api.operations import OPERATIONS, Operation
from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = [pytest.mark.ray, pytest.mark.redis]

EXAMPLES = 25
"""An operation and mode: what is told to be right, and what is not."""
MODELS = {"/v1/embeddings": "all-MiniLM-L6-v2"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    file: Path = tmp_path_factory.mktemp("config") / "gateway.yaml"
    file.write_text(
        "engine: {kind: simulated, simulated: {step_seconds: 0.0, step_seconds_per_sequence: 0.0}}\n"
        "server: {port: 0}\nembeddings: {enabled: true}\n"
    )
    gateway = GatewayProcess("--config", str(file)).wait_ready()
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def described(gateway: GatewayProcess) -> Any:
    found = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")

    # a name that nobody serves is refused before anything else is looked at
    @found.hook
    def map_body(context: Any, body: Any) -> Any:
        if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) % 4:
            body["model"] = MODELS.get(context.operation.path, "simulated-1b")
        return body

    return found


CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_every_answer_is_as_told(described: Any, operation: Operation, mode: GenerationMode) -> None:
    told = described[operation.path][operation.method]

    @given(case=told.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None, derandomize=True, database=None
    )
    def holds(case: Any) -> None:
        answer = case.call(timeout=60)
        # who asks for it within a nanosecond is told that it was too late
        refused = answer.status_code == 504 and "x-request-timeout" in (case.headers or {})
        case.validate_response(answer, checks=CHECKS[1:] if refused else CHECKS)

    try:
        holds()
    except Unsatisfiable:
        # there is nothing wrong that could be sent to it
        assert mode is GenerationMode.NEGATIVE


def test_nothing_is_left_running(gateway: GatewayProcess) -> None:
    for series in ("wattgate_running_requests", "wattgate_waiting_requests"):
        until(lambda series=series: gateway.metric(series) == 0, what=series)
