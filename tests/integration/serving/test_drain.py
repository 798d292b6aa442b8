"""An orderly end loses nothing that was accepted."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.integration.serving.gateway_process import GatewayProcess, until
from tests.integration.serving.streams import Streams

pytestmark = pytest.mark.ray

CONFIG = "engine: {kind: simulated}\nserver: {port: 0}\nadmission: {max_concurrency: 2}\n"


def test_running_and_queued_requests_are_answered_after_a_sigterm(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    gateway = GatewayProcess("--config", str(file)).wait_ready()
    with ThreadPoolExecutor(2) as pool:
        streams = Streams(gateway, "simulated-1b", count=6, tokens=60, begun=2)
        body = {"model": "simulated-1b", "messages": [{"role": "user", "content": "One more."}], "max_tokens": 8}
        unary = [pool.submit(httpx.post, f"{gateway.url}/v1/chat/completions", json=body, timeout=60) for _ in range(2)]
        # four streams and the unary pair, which are one to the cache, wait for a slot
        until(lambda: gateway.metric("wattgate_waiting_requests") >= 5, what="a queue")
        gateway.process.send_signal(signal.SIGTERM)
        assert streams.complete()
        assert [answer.result(timeout=60).status_code for answer in unary] == [200, 200]
    assert gateway.stop() == 0
