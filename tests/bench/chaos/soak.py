"""A steady, mixed load for a long time: memory, descriptors and tasks stay where they were."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import httpx
import orjson
import psutil
import redis

from tests.bench.chaos.ends import PATH, End, Ended, ask, violations
from tests.bench.chaos.faults import SIMULATED, body
from tests.bench.chaos.house import House

MODEL = "simulated-1b"
BOUNDED = SIMULATED + "cache: {redis_memory_mib: 16}\n"
CLIENTS = 8
DEADLINE_SECONDS = 20.0
PATIENCE_SECONDS = 30.0
MOST_GROWTH = 0.10
"""Of resident memory, last quarter over second quarter: allocators and caches have filled by then."""
MOST_MORE = 0.20
"""Of descriptors and tasks, and a handful besides."""
HANDFUL = 8
FILLING = ("redis", "resident MB")
"""Not judged: answers are kept for an hour and settlements for a quarter of one, so that it fills for as long. What
would be a leak there is a key that never expires, or the cache's memory above its bound: these are."""
OVER = 1.1
"""Of ``maxmemory``: Redis evicts at the next command, and clients' buffers count too."""


async def mixed(url: str, stop: asyncio.Event, ended: list[Ended], gone: list[int], seed: int) -> None:
    """Answers, hits, refusals for bad bodies, and clients that leave in mid-stream."""
    draw, number = random.Random(seed), 0
    async with aiohttp.ClientSession() as session:
        while not stop.is_set():
            number += 1
            if number % 10 == 0:
                await leave(session, url, body(MODEL, draw, number) | {"stream": True, "max_tokens": 64})
                gone.append(number)
                continue
            asked = body(MODEL, draw, number)
            if number % 15 == 0:
                asked |= {"max_tokens": -1}
            one = await ask(session, url, asked, patience_seconds=PATIENCE_SECONDS, deadline_seconds=DEADLINE_SECONDS)
            if one.status != 400:
                ended.append(one)


async def leave(session: aiohttp.ClientSession, url: str, asked: dict[str, Any]) -> None:
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with session.post(url + PATH, data=orjson.dumps(asked)) as response:
            await response.content.readany()


def sample(house: House) -> dict[str, dict[str, float]]:
    """Resident megabytes and descriptors by what a process does, and the gateway's tasks."""
    out: dict[str, dict[str, float]] = defaultdict(lambda: {"resident MB": 0.0, "descriptors": 0.0})
    supervisor = psutil.Process(house.gateway.process.pid)
    for what, process in [("supervisor", supervisor), *house.processes()]:
        with contextlib.suppress(psutil.Error):
            out[what]["resident MB"] += process.memory_info().rss / 1e6
            out[what]["descriptors"] += process.num_fds()
    for socket in house.run_folder.glob("*redis*/redis.sock"):
        with contextlib.suppress(redis.RedisError), redis.Redis(unix_socket_path=str(socket)) as server:
            held = server.info("keyspace").get("db0", {"keys": 0, "expires": 0})
            out["redis"]["lasting keys"] = out["redis"].get("lasting keys", 0.0) + held["keys"] - held["expires"]
            memory = server.info("memory")
            if memory["maxmemory"]:
                out["redis"]["over its bound"] = float(memory["used_memory"] > OVER * memory["maxmemory"])
    with contextlib.suppress(httpx.HTTPError):
        out["gateway replica"]["tasks"] = house.gateway.metric("wattgate_event_loop_tasks")
    return dict(out)


async def watched(house: House, seconds: float, every_seconds: float) -> tuple[list[Ended], int, list[dict[str, Any]]]:
    stop, ended, gone, samples = asyncio.Event(), list[Ended](), list[int](), list[dict[str, Any]]()
    tasks = [asyncio.create_task(mixed(house.url, stop, ended, gone, seed)) for seed in range(CLIENTS)]
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        await asyncio.sleep(every_seconds)
        samples.append({"at": time.monotonic() - start, "of": await asyncio.to_thread(sample, house)})
    stop.set()
    await asyncio.gather(*tasks)
    return ended, len(gone), samples


def growth(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Second quarter against the last, by process and figure."""
    quarter = max(1, len(samples) // 4)
    before, after = samples[quarter : 2 * quarter] or samples[:1], samples[-quarter:]
    rows = []
    for what in samples[-1]["of"]:
        for figure in samples[-1]["of"][what]:
            first = [one["of"][what][figure] for one in before if figure in one["of"].get(what, {})]
            last = [one["of"][what][figure] for one in after if figure in one["of"].get(what, {})]
            if first and last:
                rows.append({"process": what, "figure": figure, "then": median(first), "in the end": median(last)})
    return rows


def risen(rows: list[dict[str, Any]]) -> list[str]:
    """What did not stay flat, of what has to."""
    out = []
    for row in rows:
        if (row["process"], row["figure"]) == FILLING:
            continue
        then, now = row["then"], row["in the end"]
        if row["figure"] == "over its bound":
            out += [f"{row['process']}: memory is above its bound"] if now else []
            continue
        most = then * (1 + MOST_GROWTH) + 2 if row["figure"] == "resident MB" else then * (1 + MOST_MORE) + HANDFUL
        if now > most:
            out.append(f"{row['process']}: {row['figure']} rose from {then:.1f} to {now:.1f}")
    return out


def run(seconds: float, every_seconds: float = 10.0) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        house = House(BOUNDED, Path(folder))
        try:
            ended, gone, samples = asyncio.run(watched(house, seconds, every_seconds))
            rows = growth(samples)
            defects = violations(ended, ()) + risen(rows) + house.settled()
            books = house.books()
        finally:
            left = house.close()
    if not any(one.end is End.ANSWER for one in ended):
        defects.append("nothing was answered at all")
    if not any(row["figure"] == "lasting keys" for row in rows):
        defects.append("redis was not asked for its keys")
    return {
        "seconds": seconds,
        "requests": len(ended),
        "left in mid-stream": gone,
        "ends": dict(Counter(one.end.value for one in ended).most_common()),
        "books_joules": books,
        "defects": defects + left,
        "rows": rows,
    }
