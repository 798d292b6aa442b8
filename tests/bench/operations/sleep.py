"""One sleep of the real engine: how long waking takes, what it saved. ``python -m tests.bench.operations.sleep``."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.bench.serving.report import machine
from tests.integration.serving.gateway_process import GatewayProcess, until

RESULTS = Path(__file__).parent / "results"
IDLE_SECONDS, ASLEEP_SECONDS = 15, 30.0


def engine_processes(gateway: GatewayProcess) -> tuple[int, float]:
    """How many the engine has, and their resident gigabytes."""
    found, resident_bytes = 0, 0
    for process in psutil.Process(gateway.process.pid).children(recursive=True):
        # one that has just ended is no process any more, or a zombie
        with contextlib.suppress(psutil.Error):
            if "VLLM::" in f"{process.name()} {process.cmdline()}" or "EngineCore" in process.name():
                resident_bytes += process.memory_info().rss
                found += 1
    return found, resident_bytes / 1e9


def ask(gateway: GatewayProcess, text: str) -> tuple[float, str]:
    body = {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 24,
        "temperature": 0,
    }
    began = time.monotonic()
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=240)
    answer.raise_for_status()
    return time.monotonic() - began, answer.headers["x-cache"]


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="sleep-"))
    (folder / "gateway.yaml").write_text(f"engine: {{unload_after_seconds: {IDLE_SECONDS}}}\nserver: {{port: 0}}\n")
    gateway = GatewayProcess("--config", str(folder / "gateway.yaml")).wait_ready()
    try:
        question = "What is the capital of France?"
        awake_seconds, _ = ask(gateway, question)
        processes, gigabytes = engine_processes(gateway)
        until(lambda: httpx.get(f"{gateway.url}/readyz").json()["status"] == "asleep", 120, "sleep")
        until(lambda: engine_processes(gateway)[0] == 0, 60, "the end of the engine's processes")
        time.sleep(ASLEEP_SECONDS)
        hit_seconds, outcome = ask(gateway, question)
        still = httpx.get(f"{gateway.url}/readyz").json()["status"]
        first_seconds, _ = ask(gateway, "Name one river of Germany.")
        events = [event["text"] for event in httpx.get(f"{gateway.url}/v1/events").json()["data"]]
        joules = {
            kind: gateway.metric("wattgate_engine_asleep_joules_total", kind=kind)
            for kind in ("expected", "metered", "wake")
        }
        result: dict[str, Any] = {
            "machine": machine(),
            "command": "python -m tests.bench.operations.sleep",
            "engine_processes": {"awake": processes, "asleep": 0},
            "engine_resident_gigabytes_freed": round(gigabytes, 2),
            "answer_seconds_awake": round(awake_seconds, 2),
            "hit_while_asleep": {"outcome": outcome, "seconds": round(hit_seconds, 4), "still": still},
            "wake_seconds": round(gateway.metric("wattgate_engine_wake_seconds_sum"), 1),
            "first_answer_seconds": round(first_seconds, 1),
            "asleep_seconds": round(gateway.metric("wattgate_engine_asleep_seconds_total"), 1),
            "joules": {kind: round(value, 1) for kind, value in joules.items()},
            "saved_joules": round(joules["expected"] - joules["metered"] - joules["wake"], 1),
            "power": "modelled from utilisation (no meter here)",
            "books_difference_joules": gateway.metric("wattgate_books_difference_joules"),
            "events": events,
        }
    finally:
        gateway.stop()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sleep.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
