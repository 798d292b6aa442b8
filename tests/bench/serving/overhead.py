"""The gateway's own cost: a zero-delay simulated engine against a bare app and the platform's floor, same bytes.

Rounds alternate between the targets, so that a machine that drifts is as slow for each; a figure is the
median over the rounds.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from serving.placement.ray_runtime import free_port
from tests.bench.serving.client import Connection, Measured, closed_loop
from tests.integration.serving.gateway_process import GatewayProcess

PATH = "/v1/chat/completions"
CHUNKS = 50
ROUNDS = 7
CONFIG = """
engine:
  kind: simulated
  simulated: {prefill_seconds_per_token: 0, step_seconds: 0, step_seconds_per_sequence: 0}
admission: {max_concurrency: 256}
server: {port: 0}
cache: {tier: %s}
"""
SEPARATE = """
models:
  simulated-1b:
    engine:
      kind: simulated
      simulated: {prefill_seconds_per_token: 0, step_seconds: 0, step_seconds_per_sequence: 0}
    admission: {max_concurrency: 256}
server: {port: 0}
cache: {tier: off}
"""


def body(number: int | str, *, stream: bool, storable: bool = False) -> bytes:
    """``storable``: ends by itself after about as many tokens; a cut answer is not cached."""
    request: dict[str, Any] = {
        "model": "simulated-1b",
        "messages": [{"role": "user", "content": f"Question {number}"}],
        "stream": stream,
    }
    if not storable:
        request |= {"max_tokens": CHUNKS - 2, "ignore_eos": True}
    return json.dumps(request).encode()


def unchunked(raw: bytes) -> bytes:
    out, rest = b"", raw
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        out, rest = out + rest[:length], rest[length + 2 :]
    return out


async def record(url: str) -> dict[str, Any]:
    """The gateway's own answers, for the others to repeat."""
    connection = Connection(url)
    _, unary = await connection.post(PATH, body("sample", stream=False))
    _, stream = await connection.post(PATH, body("sample", stream=True))
    connection.close()
    frames = [frame + "\n\n" for frame in unchunked(stream).decode().split("\n\n") if frame]
    return {"unary": unary.decode(), "frames": frames}


async def wait_up(url: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            status, _ = await Connection(url).post(PATH, body("up", stream=False))
            if status == 200:
                return
        except (OSError, asyncio.IncompleteReadError):
            pass
        if time.monotonic() > end:
            raise TimeoutError(url)
        await asyncio.sleep(0.3)


def summary(name: str, target: str, rounds: list[Measured]) -> dict[str, Any]:
    return {
        "load": name,
        "target": target,
        "p50 ms": median(m.quantile(0.5) for m in rounds) * 1000,
        "p99 ms": median(m.quantile(0.99) for m in rounds) * 1000,
        "per second": median(m.per_second for m in rounds),
        "failures": sum(m.failures for m in rounds),
    }


async def measure(targets: dict[str, str], hits: dict[str, str] | None = None) -> list[dict[str, Any]]:
    loads = [
        ("unary, 1 client", 1, 300, False, targets),
        ("unary, 16 clients", 16, 1600, False, targets),
        (f"stream of {CHUNKS}, 1 client", 1, 60, True, targets),
        (f"stream of {CHUNKS}, 16 clients", 16, 320, True, targets),
    ]
    if hits is not None:
        loads += [("exact hit, 1 client", 1, 300, False, hits), ("exact hit, 16 clients", 16, 1600, False, hits)]
    rows = []
    for name, clients, requests, stream, urls in loads:
        hit = urls is hits

        def bodies(number: int, stream: bool = stream, hit: bool = hit, name: str = name) -> bytes:
            text = "the same" if hit else f"{name} {time.perf_counter_ns()} {number}"
            return body(text, stream=stream, storable=hit)

        rounds: dict[str, list[Measured]] = {target: [] for target in urls}
        for url in urls.values():
            await closed_loop(url, PATH, bodies, clients=clients, requests=max(16, requests // 10))
        for _ in range(ROUNDS):
            for target, url in urls.items():
                rounds[target].append(await closed_loop(url, PATH, bodies, clients=clients, requests=requests))
        rows += [summary(name, target, measured) for target, measured in rounds.items()]
        print(rows[-len(urls) :], file=sys.stderr, flush=True)
    return rows


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        off, exact, replay = Path(folder) / "off.yaml", Path(folder) / "exact.yaml", Path(folder) / "replay.json"
        off.write_text(CONFIG % "off")
        exact.write_text(CONFIG % "exact")
        gateway = GatewayProcess("--config", str(off)).wait_ready()
        cached = GatewayProcess("--config", str(exact)).wait_ready()
        floors: list[subprocess.Popen[bytes]] = []
        try:
            replay.write_text(json.dumps(uvloop.run(record(gateway.url))))
            urls = {}
            for kind in ("uvicorn", "replica"):
                port = free_port()
                command = [sys.executable, "-m", "tests.bench.serving.floor", kind, str(port), str(replay)]
                floors.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                urls[kind] = f"http://127.0.0.1:{port}"
                uvloop.run(wait_up(urls[kind]))
            targets = {"bare uvicorn": urls["uvicorn"], "empty replica": urls["replica"], "gateway": gateway.url}
            hits = {"bare uvicorn": urls["uvicorn"], "empty replica": urls["replica"], "gateway": cached.url}
            rows = uvloop.run(measure(targets, hits))
        finally:
            for floor in floors:
                floor.terminate()
            for floor in floors:
                floor.wait(60)
            gateway.stop()
            cached.stop()
    return {"command": "make bench", "rounds": ROUNDS, "rows": rows, "ratios": ratios(rows)}


def run_separate() -> dict[str, Any]:
    """The model in a replica of its own against the model in the gateway's."""
    with tempfile.TemporaryDirectory() as folder:
        together, apart = Path(folder) / "together.yaml", Path(folder) / "apart.yaml"
        together.write_text(CONFIG % "off")
        apart.write_text(SEPARATE)
        colocated = GatewayProcess("--config", str(together)).wait_ready()
        separate = GatewayProcess("--config", str(apart)).wait_ready()
        try:
            rows = uvloop.run(measure({"colocated": colocated.url, "separate": separate.url}))
        finally:
            colocated.stop()
            separate.stop()
    return {
        "command": "make bench",
        "rounds": ROUNDS,
        "rows": rows,
        "ratios": ratios(rows, "separate", ("colocated",)),
    }


def ratios(
    rows: list[dict[str, Any]], target: str = "gateway", floors: tuple[str, ...] = ("bare uvicorn", "empty replica")
) -> list[dict[str, Any]]:
    """The target against each floor, per load."""
    by = {(row["load"], row["target"]): row for row in rows}
    return [
        {
            "load": load,
            "against": floor,
            "added p50 ms": by[load, target]["p50 ms"] - by[load, floor]["p50 ms"],
            "added p99 ms": by[load, target]["p99 ms"] - by[load, floor]["p99 ms"],
            "share of its rate": by[load, target]["per second"] / by[load, floor]["per second"],
        }
        for load in dict.fromkeys(row["load"] for row in rows)
        for floor in floors
    ]
