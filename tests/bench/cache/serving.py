"""The cache on the request path, one replica in one process: ``python -m tests.bench.cache.serving [--out DIR]``.

Requests go through the whole ASGI application (authentication, parsing, cache, receipts) without a socket; the engine
is the simulated one, with no delay but for the streams; the cache is the gateway's own, on a Redis 8 beside it and the
bundled encoder.

- requests/s at 16 clients: misses, exact hits from process memory and from Redis, semantic hits of texts never seen
  before (embedded, searched, judged) and of texts whose vector is known;
- lag of the event loop (how much later than asked a 2 ms timer fires): idle, then with 16 streams of 20 ms a frame and
  8 clients that do nothing but semantic lookups of new texts;
- what a Redis that hangs (SIGSTOP) adds: milliseconds of a request before, while it hangs, with the breaker open.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np

from cache.embedded import EmbeddedRedis
from serving.config import GatewayConfig
from serving.engines.base import EngineRequest
from serving.placement.caching import build_cache
from tests.unit.serving.conftest import House
from tests.unit.serving.fakes import answer_frames

CLIENTS = 16
STORED = [f"How do I reset the password of the {name} panel?" for name in ("red", "blue", "green", "white")]
_MANNERS = ("Please tell me, ", "Hello, ", "Hi there, ", "Good morning, ", "Excuse me, ")


async def build(url: str | None, redis_budget_seconds: float = 1.0) -> House:
    house = House(cap=256, queue=512, max_concurrent_requests=512)
    settings = {
        "tier": "semantic",
        "tenant_secret": "a secret of the bench",
        "redis_budget_seconds": redis_budget_seconds,
        "embed_deadline_seconds": 5.0,
        "max_wrong": 0.05,
    }
    built = await build_cache(GatewayConfig.model_validate({"cache": settings}), url, house.metrics)
    assert built.cache is not None
    house.cache = house.gateway.cache = built.cache
    return house


async def per_second(house: House, seconds: float, text: Callable[[], str], expected: str) -> dict[str, Any]:
    """Requests/s of ``CLIENTS`` loops, with the share that had the expected ``x-cache``."""
    end = time.perf_counter() + seconds
    taken: list[float] = []
    as_expected = 0

    async def client() -> None:
        nonlocal as_expected
        while time.perf_counter() < end:
            started = time.perf_counter()
            reply = await house.send(house.chat(text()))
            taken.append(time.perf_counter() - started)
            assert reply.status == 200, reply.body
            as_expected += reply.headers["x-cache"] == expected

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    spent = time.perf_counter() - started
    return {"per_second": len(taken) / spent, "as_expected": as_expected / len(taken)} | milliseconds(taken)


def milliseconds(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": float(np.percentile(seconds, q)) * 1e3 for q in (50, 99)}


async def lag(seconds: float) -> dict[str, float]:
    loop, late = asyncio.get_running_loop(), []
    end = loop.time() + seconds
    while (asked := loop.time() + 0.002) < end:
        await asyncio.sleep(0.002)
        late.append(loop.time() - asked)
    return milliseconds(late)


async def throughput(house: House, seconds: float) -> dict[str, Any]:
    numbers = itertools.count()
    for text in STORED:
        await house.send(house.chat(text))
    rows: dict[str, Any] = {}
    rows["miss"] = await per_second(house, seconds, lambda: f"What is in box {next(numbers)}?", "MISS")
    rows["exact hit, in process"] = await per_second(house, seconds, lambda: STORED[0], "HIT-EXACT")
    local, house.cache._local = house.cache._local, type(house.cache._local)(entries=0, size_bytes=0, ttl_seconds=1.0)
    rows["exact hit, Redis"] = await per_second(house, seconds, lambda: STORED[0], "HIT-EXACT")
    house.cache._local = local

    def known() -> str:
        return _MANNERS[next(numbers) % len(_MANNERS)] + STORED[next(numbers) % 4][0].lower() + STORED[0][1:]

    for _ in range(40):
        await house.send(house.chat(known()))
    rows["semantic hit, vector known"] = await per_second(house, seconds, known, "HIT-SEMANTIC")
    rows["semantic hit, new text"] = await per_second(
        house, seconds, lambda: "please " * (next(numbers) % 9) + _new(next(numbers)), "HIT-SEMANTIC"
    )
    return rows


def _new(number: int) -> str:
    """Never the same characters twice: marks and capitals that say nothing."""
    text = STORED[number % 4]
    written = "".join(c.upper() if number >> (place % 24) & 1 else c for place, c in enumerate(text))
    return written + " " * (number % 7) + "?" * (number // 7 % 5)


async def loop_lag(house: House, seconds: float) -> dict[str, Any]:
    idle = await lag(seconds)
    numbers = itertools.count(1_000_000)
    plain = house.engine.script

    async def slow(request: EngineRequest) -> AsyncIterator[bytes]:
        for frame in answer_frames(request):
            for _ in range(int(seconds * 50 / 4)):
                await asyncio.sleep(0.02)
            yield frame

    house.engine.script = slow
    stop = asyncio.Event()
    looked = 0

    async def hammer() -> None:
        nonlocal looked
        while not stop.is_set():
            reply = await house.send(house.chat(_new(next(numbers))))
            looked += reply.status == 200

    streams = [
        asyncio.create_task(house.send(house.chat(f"Tell me a story about {number} whales", stream=True)))
        for number in range(16)
    ]
    hammers = [asyncio.create_task(hammer()) for _ in range(8)]
    busy = await lag(seconds)
    stop.set()
    await asyncio.gather(*streams, *hammers)
    house.engine.script = plain
    return {"idle": idle, "16 streams, 8 clients looking up": busy, "lookups_per_second": looked / seconds}


async def hanging(server: EmbeddedRedis) -> dict[str, Any]:
    house = await build(server.url, redis_budget_seconds=0.04)
    numbers = itertools.count()

    async def ask(count: int) -> list[float]:
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            reply = await house.send(house.chat(f"What is in drawer {next(numbers)}?"))
            taken.append(time.perf_counter() - started)
            assert reply.status == 200
        return taken

    await ask(50)
    before = await ask(200)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        first = await ask(3)
        after = await ask(200)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await house.cache.close()
    return {
        "before": milliseconds(before),
        "first three while it hangs": milliseconds(first),
        "breaker open": milliseconds(after),
        "added_p99_ms": (float(np.percentile(first + after, 99)) - float(np.percentile(before, 99))) * 1e3,
    }


async def run(seconds: float) -> dict[str, Any]:
    with EmbeddedRedis() as redis:
        house = await build(redis.url)
        result = {"throughput": await throughput(house, seconds), "loop_lag": await loop_lag(house, seconds)}
        await house.cache.close()
        result["hanging"] = await hanging(redis)
    return result


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "# The cache on the request path",
        "",
        "Written by `python -m tests.bench.cache.serving`; its docstring says what is measured. Two cores, alone.",
        "",
        f"| {CLIENTS} clients | requests/s | p50 ms | p99 ms | as expected |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {row['per_second']:.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['as_expected']:.1%} |"
        for name, row in result["throughput"].items()
    ]
    loop = result["loop_lag"]
    lines += ["", "| event loop | lag p50 ms | p99 ms |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} |" for name, row in loop.items() if isinstance(row, dict)
    ]
    lines += [
        "",
        f"{loop['lookups_per_second']:.0f} lookups/s meanwhile.",
        "",
        "| Redis | p50 ms | p99 ms |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} |"
        for name, row in result["hanging"].items()
        if isinstance(row, dict)
    ]
    lines += ["", f"Added at p99, hang and open breaker together: {result['hanging']['added_p99_ms']:.1f} ms.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    result = asyncio.run(run(arguments.seconds))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "serving.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    (arguments.out / "serving.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


if __name__ == "__main__":
    main()
