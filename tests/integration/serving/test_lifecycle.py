"""Start, end and failure leave nothing behind; faults of the start are one readable line."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from serving.placement.janitor import processes_of
from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = pytest.mark.ray


def run_folder_of(gateway: GatewayProcess) -> Path:
    for child in psutil.Process(gateway.process.pid).children(recursive=True):
        found = re.search(r"serving\.placement\.janitor (\S+)", " ".join(child.cmdline()))
        if found:
            return Path(found.group(1))
    raise AssertionError("no janitor beside the gateway")


def nothing_is_left_after(number: signal.Signals, gateway: GatewayProcess) -> None:
    folder = run_folder_of(gateway)
    below = psutil.Process(gateway.process.pid).children(recursive=True)
    assert len(below) > 5
    status = gateway.stop(number)
    assert status == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    until(lambda: not folder.exists(), what="the end of the run's folder")
    until(lambda: not any(process.is_running() for process in below), what="the end of all processes")
    assert processes_of(folder) == []


@pytest.mark.parametrize(
    ("number", "there"),
    [(signal.SIGINT, "raylet"), pytest.param(signal.SIGTERM, "ServeController", marks=pytest.mark.long)],
)
def test_a_start_that_is_stopped_leaves_nothing(number: signal.Signals, there: str) -> None:
    gateway = GatewayProcess("--engine", "simulated", "--port", "0")
    try:
        until(lambda: there in names_below(gateway), timeout_seconds=120, what=f"a process {there}")
        folder = run_folder_of(gateway)
    finally:
        status = gateway.stop(number)
    assert status == 130, gateway.output()
    assert not folder.exists()
    assert processes_of(folder) == []


def names_below(gateway: GatewayProcess) -> str:
    found = []
    for process in psutil.Process(gateway.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found.append(process.name())
    return " ".join(found)


def replicas_of(gateway: GatewayProcess) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(gateway.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ServeReplica:wattgate" in " ".join([process.name(), *process.cmdline()]):
                found.append(process)
    return found


def replica_pids(gateway: GatewayProcess) -> set[int]:
    found = {process.pid for process in replicas_of(gateway)}
    assert found
    return found


def test_while_no_replica_is_there_the_proxy_answers_in_our_form(simulated_gateway: GatewayProcess) -> None:
    body = {"model": "simulated-1b", "messages": [{"role": "user", "content": "Anybody there?"}]}
    refusals: list[httpx.Response] = []
    broken: list[httpx.TransportError] = []

    def answered() -> bool:
        try:
            answer = httpx.post(f"{simulated_gateway.url}/v1/chat/completions", json=body, timeout=30)
        except httpx.TransportError as error:
            broken.append(error)
            return False
        if answer.status_code != 200:
            refusals.append(answer)
        return answer.status_code == 200

    def refused() -> bool:
        # Ray may have a new one before anybody has asked
        killed = replicas_of(simulated_gateway)
        for process in killed:
            process.kill()
        psutil.wait_procs(killed)
        return not answered()

    until(refused, timeout_seconds=120, what="a request that no replica is there for")
    until(answered, timeout_seconds=240, what="a new replica")
    assert broken == []
    assert {answer.status_code for answer in refusals} == {503}
    assert {answer.json()["error"]["code"] for answer in refusals} <= {"no_replica", "engine_unavailable"}


def ready(gateway: GatewayProcess) -> float:
    return gateway.metric("wattgate_engine_ready", model="simulated-1b")


def test_of_two_gateways_side_by_side_one_is_killed_and_leaves_nothing(
    simulated_gateway: GatewayProcess,
) -> None:
    other = GatewayProcess("--engine", "simulated", "--port", "0").wait_ready()
    try:
        assert other.url != simulated_gateway.url
        # gauges are set once a second
        for gateway in (other, simulated_gateway):
            until(lambda gateway=gateway: ready(gateway) == 1, what="the ready series")
        nothing_is_left_after(signal.SIGKILL, other)
    finally:
        other.stop()
    assert ready(simulated_gateway) == 1


def outcome(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from serving.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_a_taken_port_is_named_with_the_mend() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, line = outcome("serve", "--engine", "simulated", "--port", str(port))
    assert status == 1
    assert str(port) in line
    assert "--port" in line


def test_an_unknown_key_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("engine:\n  vllm:\n    max_bach: 4\n")
    status, line = outcome("serve", "--config", str(file))
    assert status == 2
    assert f"{file}:3: unknown key engine.vllm.max_bach" in line


def test_another_address_without_keys_is_refused() -> None:
    status, line = outcome("serve", "--engine", "simulated", "--host", "0.0.0.0")
    assert status == 2
    assert "api_keys" in line


def test_a_model_that_is_not_there_ends_the_start_with_its_reason() -> None:
    status, line = outcome("serve", "--model", "./no-such-model", "--port", "0")
    assert status == 1
    assert "no model in ./no-such-model" in line
