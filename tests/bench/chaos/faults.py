"""kill -9 in a loop under load: replicas, Redis, the proxy, and where there is one the engine core."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.chaos.batch import RunningBatch
from tests.bench.chaos.ends import End, Ended, Kill, ask, violations
from tests.bench.chaos.house import House

CLIENTS = 12
DEADLINE_SECONDS = 20.0
PATIENCE_SECONDS = 35.0
SIMULATED = """
server: {port: 0, replicas: 2, shutdown_grace_seconds: 10}
engine:
  kind: simulated
  simulated: {prefill_seconds_per_token: 0.0001, step_seconds: 0.01, step_seconds_per_sequence: 0.0005}
admission: {max_concurrency: 16}
"""
TOGETHER = """
server: {port: 0, replicas: 2, shutdown_grace_seconds: 10}
models:
  simulated-1b:
    replicas: 2
    engine:
      kind: simulated
      simulated: {prefill_seconds_per_token: 0.0001, step_seconds: 0.01, step_seconds_per_sequence: 0.0005}
    admission: {max_concurrency: 16}
  smollm2-135m-instruct:
    engine: {kind: vllm, vllm: {max_batch: 8, max_context_tokens: 1024, kv_cache_gib: 1}}
    admission: {max_concurrency: 8}
    fallback: {model: simulated-1b}
"""
PLANS = {
    "simulated": (SIMULATED, ("simulated-1b",), ("gateway replica", "redis", "proxy")),
    "together": (
        TOGETHER,
        ("simulated-1b", "smollm2-135m-instruct"),
        ("engine core", "gateway replica", "redis", "proxy", "model replica"),
    ),
}


def body(model: str, draw: random.Random, number: int) -> dict[str, Any]:
    """One in four is asked again and again: the cache has it, or a run to share."""
    text = f"Question {draw.randrange(4)}" if number % 4 == 0 else f"Question {number} {draw.random()}"
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": draw.choice((4, 16, 64)),
        "stream": draw.random() < 0.6,
    }


async def load(url: str, models: tuple[str, ...], stop: asyncio.Event, ended: list[Ended], seed: int) -> None:
    draw, number = random.Random(seed), 0
    # a connection for each request: a pooled one that the proxy's end closed would be the client's fault
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0)) as session:
        while not stop.is_set():
            model = models[0] if number % 3 else models[-1]
            one = await ask(
                session,
                url,
                body(model, draw, number),
                patience_seconds=PATIENCE_SECONDS,
                deadline_seconds=DEADLINE_SECONDS,
            )
            ended.append(one)
            number += 1
            if one.end is not End.ANSWER:
                await asyncio.sleep(0.2)


async def under_load(
    house: House, models: tuple[str, ...], targets: tuple[str, ...], seconds: float, pause_seconds: float, clients: int
) -> tuple[list[Ended], list[Kill]]:
    stop, ended, kills = asyncio.Event(), list[Ended](), list[Kill]()
    tasks = [asyncio.create_task(load(house.url, models, stop, ended, seed)) for seed in range(clients)]
    end = time.monotonic() + seconds
    number = 0
    await asyncio.sleep(min(pause_seconds, 3.0))
    while time.monotonic() < end:
        what = targets[number % len(targets)]
        number += 1
        at = time.monotonic()
        pid = await asyncio.to_thread(house.kill, what)
        if pid:
            recovered: float | None = None
            try:
                recovered = await asyncio.to_thread(house.answers_again, models[0], 60.0)
            except AssertionError:
                recovered = None
            kills.append(Kill(what, at, recovered, pid))
        await asyncio.sleep(pause_seconds)
    stop.set()
    await asyncio.gather(*tasks)
    return ended, kills


def run(plan: str, seconds: float, pause_seconds: float, clients: int = CLIENTS) -> dict[str, Any]:
    """One run; ``defects`` is empty where all is as it should be."""
    config, models, targets = PLANS[plan]
    with tempfile.TemporaryDirectory() as folder:
        house = House(config, Path(folder))
        defects: list[str] = []
        before = house.census()
        try:
            batch = RunningBatch(house.url, models[0], seconds)
            ended, kills = asyncio.run(under_load(house, models, targets, seconds, pause_seconds, clients))
            defects += violations(ended, kills)
            missed = [kill.what for kill in kills if kill.recovered_seconds is None]
            defects += [f"not recovered from the kill of the {what}" for what in missed]
            defects += house.complete_again(before)
            lines, unfinished = batch.finished()
            defects += unfinished
            defects += house.settled()
            books = house.books()
        finally:
            defects += house.close()
    if not any(one.end is End.ANSWER for one in ended):
        defects.append("nothing was answered at all")
    return {
        "plan": plan,
        "seconds": seconds,
        "clients": clients,
        "processes": before,
        "requests": len(ended),
        "ends": dict(Counter(one.end.value for one in ended).most_common()),
        "refusals": dict(Counter(f"{one.status} {one.code}" for one in ended if one.end is End.REFUSAL).most_common()),
        "fallbacks": sum(one.fallback is not None for one in ended),
        "cache": dict(Counter(str(one.cache) for one in ended if one.end is End.ANSWER).most_common()),
        "batch_lines": lines,
        "books_joules": books,
        "defects": defects,
        "rows": [_row(what, [kill for kill in kills if kill.what == what]) for what in targets],
    }


def _row(what: str, kills: list[Kill]) -> dict[str, Any]:
    times = sorted(kill.recovered_seconds for kill in kills if kill.recovered_seconds is not None)
    return {
        "killed": what,
        "times": len(kills),
        "answered again, median s": times[len(times) // 2] if times else float("nan"),
        "worst s": times[-1] if times else float("nan"),
    }
