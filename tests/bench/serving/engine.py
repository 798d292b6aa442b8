"""Output tokens/s through the gateway, cache off, over the bare vLLM server: same model, flags and load.

Both servers are up at once and take turns, so that a machine that drifts is as slow for each. While one
works the other is idle.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from serving.bundled_model import BUNDLED_SERVED_NAME, prepare_bundled_model
from serving.engines.settings import VllmSettings
from serving.engines.vllm import cpu_has_native_bf16, engine_cores, vllm_arguments
from serving.placement.ray_runtime import free_port
from tests.bench.serving.client import Connection, closed_loop
from tests.integration.serving.gateway_process import GatewayProcess

PATH = "/v1/chat/completions"
TOKENS = 64
LOADS = ((1, 2), (8, 16), (32, 64))
"""Clients, requests."""
ROUNDS = 3


def body(number: int) -> bytes:
    request = {
        "model": BUNDLED_SERVED_NAME,
        # what differs comes first: no prefix is shared, and nothing is answered from a cache
        "messages": [{"role": "user", "content": f"{time.perf_counter_ns()} {number}: tell a story about a lamp."}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(request).encode()


def start_bare(port: int, log: Path) -> subprocess.Popen[bytes]:
    settings = VllmSettings(max_context_tokens=4096)
    model = prepare_bundled_model(lambda _: None)
    arguments = vllm_arguments(
        settings, str(model), BUNDLED_SERVED_NAME, revision=None, gpu=False, bf16=cpu_has_native_bf16()
    )
    cores = engine_cores(settings, sorted(os.sched_getaffinity(0)))
    environment = {
        **os.environ,
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "VLLM_CPU_CI_ENV": "1",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as file:
        return subprocess.Popen([*command, *arguments], stdout=file, stderr=file, env=environment)


async def wait_up(url: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            status, _ = await Connection(url).post(PATH, body(0))
            if status == 200:
                return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(1)
    raise TimeoutError(url)


async def measure(targets: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for clients, requests in LOADS:
        rates: dict[str, list[float]] = {target: [] for target in targets}
        failures = dict.fromkeys(targets, 0)
        for _ in range(ROUNDS):
            for target, url in targets.items():
                measured = await closed_loop(url, PATH, body, clients=clients, requests=requests)
                rates[target].append((measured.requests - measured.failures) * TOKENS / measured.seconds)
                failures[target] += measured.failures
        pairs = [g / b for g, b in zip(rates["gateway"], rates["bare vLLM"], strict=True)]
        rows.append(
            {
                "clients": clients,
                "bare vLLM tokens/s": median(rates["bare vLLM"]),
                "gateway tokens/s": median(rates["gateway"]),
                "ratio (median of pairs)": median(pairs),
                "ratio min": min(pairs),
                "ratio max": max(pairs),
                "failures": sum(failures.values()),
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        bare = start_bare(port, Path(folder) / "bare.log")
        try:
            url = f"http://127.0.0.1:{port}"
            uvloop.run(wait_up(url))
            gateway = GatewayProcess("--port", "0", "--cache", "off").wait_ready()
            try:
                rows = uvloop.run(measure({"bare vLLM": url, "gateway": gateway.url}))
            finally:
                gateway.stop()
        finally:
            bare.terminate()
            bare.wait(60)
    gain = rows[-1]["gateway tokens/s"] / rows[0]["gateway tokens/s"]
    return {
        "command": "make bench",
        "rounds": ROUNDS,
        "tokens": TOKENS,
        "rows": rows,
        f"batching gain, {rows[-1]['clients']} clients over 1": gain,
    }
