"""An orderly end loses nothing that was accepted."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.integration.serving.gateway_process import GatewayProcess, until
from tests.integration.serving.streams import Streams
from tests.integration.serving.test_lifecycle import nothing_is_left_after, replica_pids

pytestmark = pytest.mark.ray

CONFIG = "engine: {{kind: simulated}}\nserver: {{port: 0}}\nadmission: {{max_concurrency: {cap}}}\n"


def test_a_new_cap_is_live_and_what_it_lets_wait_is_answered_after_a_sigterm(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG.format(cap=32))
    gateway = GatewayProcess("--config", str(file)).wait_ready()
    try:
        until(lambda: gateway.metric("wattgate_concurrency_cap") == 32, what="the cap's series")
        replicas = replica_pids(gateway)
        file.write_text(CONFIG.format(cap=2))
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: gateway.metric("wattgate_concurrency_cap") == 2, what="the new cap")
        assert replica_pids(gateway) == replicas
        with ThreadPoolExecutor(3) as pool:
            # long enough to find the others waiting, on any machine
            streams = Streams(gateway, "simulated-1b", count=6, tokens=500, begun=2)
            body = {"model": "simulated-1b", "messages": [{"role": "user", "content": "One more."}], "max_tokens": 8}
            unary = [
                pool.submit(httpx.post, f"{gateway.url}/v1/chat/completions", json=body, timeout=60) for _ in range(2)
            ]
            # of four streams and the unary pair, which are one to the cache, at most two may run meanwhile
            until(lambda: gateway.metric("wattgate_waiting_requests") >= 3, what="a queue")
            ending = pool.submit(nothing_is_left_after, signal.SIGTERM, gateway)
            assert streams.complete()
            assert [answer.result(timeout=60).status_code for answer in unary] == [200, 200]
            ending.result(timeout=120)
    finally:
        gateway.stop()


@pytest.mark.long
def test_an_upgrade_of_the_replicas_loses_no_request_and_cuts_no_stream(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("engine: {kind: simulated}\nserver: {port: 0, replicas: 2}\n")
    gateway = GatewayProcess(str(file), module="tests.integration.serving.redeploying").wait_ready()
    try:
        before = replica_pids(gateway)
        streams = Streams(gateway, "simulated-1b", count=6, tokens=250)
        gateway.process.send_signal(signal.SIGUSR1)
        statuses = []

        def upgraded() -> bool:
            body = {"model": "simulated-1b", "messages": [{"role": "user", "content": f"During it, {len(statuses)}."}]}
            body |= {"max_tokens": 2}
            statuses.append(httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60).status_code)
            return "version 2 runs" in gateway.output()

        until(upgraded, timeout_seconds=120, what="the upgrade")
        assert streams.complete()
        assert set(statuses) == {200}
        until(lambda: not replica_pids(gateway) & before, what="the end of the old replicas")
        assert len(replica_pids(gateway)) == 2
    finally:
        gateway.stop()
