"""Five times what the engine can do, open loop: what is accepted is answered in time, the rest is told when to come."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.chaos.ends import PATH, End, Ended, ask, violations
from tests.bench.chaos.house import House

MODEL = "simulated-1b"
CAP = 8
QUEUE = 32
TOKENS = 24
DEADLINE_SECONDS = 12.0
PATIENCE_SECONDS = 20.0
TIMES = 5.0
CONFIG = f"""
server: {{port: 0}}
engine:
  kind: simulated
  simulated: {{prefill_seconds_per_token: 0.0001, step_seconds: 0.03, step_seconds_per_sequence: 0.0005}}
admission: {{max_concurrency: {CAP}, max_queue: {QUEUE}}}
cache: {{tier: off}}
"""


def body(number: int) -> dict[str, Any]:
    message = {"role": "user", "content": f"Question {number} {time.monotonic_ns()}"}
    return {"model": MODEL, "messages": [message], "max_tokens": TOKENS, "ignore_eos": True}


async def best(session: aiohttp.ClientSession, url: str, seconds: float) -> float:
    """Answers a second with the cap kept full and nobody refused: twice as many clients as slots."""
    numbers, answered = itertools.count(), 0
    end = time.monotonic() + seconds

    async def client() -> None:
        nonlocal answered
        while time.monotonic() < end:
            one = await ask(
                session, url, body(next(numbers)), patience_seconds=PATIENCE_SECONDS, deadline_seconds=DEADLINE_SECONDS
            )
            answered += one.end is End.ANSWER and one.ended_seconds <= end

    await asyncio.gather(*(client() for _ in range(2 * CAP)))
    return answered / seconds


async def flood(session: aiohttp.ClientSession, url: str, per_second: float, seconds: float, seed: int) -> list[Ended]:
    """Poisson arrivals; nobody waits for anybody's answer."""
    draw, tasks, ended = random.Random(seed), set[asyncio.Task[None]](), list[Ended]()

    async def one(number: int) -> None:
        ended.append(
            await ask(session, url, body(number), patience_seconds=PATIENCE_SECONDS, deadline_seconds=DEADLINE_SECONDS)
        )

    start = due = time.monotonic()
    for number in itertools.count():
        due += draw.expovariate(per_second)
        if due > start + seconds:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.add(task := asyncio.create_task(one(number)))
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return ended


def told_and_true(ended: list[Ended]) -> list[float]:
    """Of each refusal: Retry-After over the time in which the queue at that moment had been served.

    The queue is full then, so its last place is the truth: what the request waited that was let in nearest before.
    """
    let_in = sorted((one for one in ended if one.queue_seconds is not None), key=lambda one: one.started_seconds)
    out, at = [], 0
    for refused in sorted(
        (one for one in ended if one.code == "queue_full" and one.retry_after_seconds is not None),
        key=lambda one: one.started_seconds,
    ):
        while at + 1 < len(let_in) and let_in[at + 1].started_seconds <= refused.started_seconds:
            at += 1
        if let_in and let_in[at].started_seconds <= refused.started_seconds and let_in[at].queue_seconds:
            assert refused.retry_after_seconds is not None
            out.append(refused.retry_after_seconds / let_in[at].queue_seconds)
    return out


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def measured(url: str, best_seconds: float, seconds: float) -> tuple[float, float, list[Ended]]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        capacity = await best(session, url, best_seconds)
        started = time.monotonic()
        ended = await flood(session, url, TIMES * capacity, seconds, seed=1)
    in_time = sum(
        one.end is End.ANSWER and one.seconds <= DEADLINE_SECONDS and one.ended_seconds <= started + seconds
        for one in ended
    )
    return capacity, in_time / seconds, ended


def run(seconds: float, best_seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        house = House(CONFIG, Path(folder))
        try:
            capacity, goodput, ended = asyncio.run(measured(house.url, best_seconds, seconds))
            defects = violations(ended, ()) + house.settled()
        finally:
            left = house.close()
    defects += left
    # what was let in and then not answered in time is late, not left out
    accepted = [one.seconds for one in ended if one.end is End.ANSWER or one.status == 504]
    ratios = told_and_true(ended)
    within = sum(0.5 <= ratio <= 2.0 for ratio in ratios) / len(ratios) if ratios else float("nan")
    p99 = quantile(accepted, 0.99)
    row = {
        "offered per s": TIMES * capacity,
        "best goodput per s": capacity,
        "goodput per s": goodput,
        "share of the best": goodput / capacity if capacity else float("nan"),
        "accepted p50 s": quantile(accepted, 0.5),
        "accepted p99 s": p99,
        "deadline s": DEADLINE_SECONDS,
        "Retry-After within 2x": within,
        "told/true p5": quantile(ratios, 0.05),
        "told/true p50": quantile(ratios, 0.5),
        "told/true p95": quantile(ratios, 0.95),
    }
    return {
        "path": PATH,
        "seconds": seconds,
        "requests": len(ended),
        "ends": dict(Counter(one.end.value for one in ended).most_common()),
        "refusals": dict(Counter(f"{one.status} {one.code}" for one in ended if one.end is End.REFUSAL).most_common()),
        "defects": defects,
        "met": {
            "goodput >= 0.9 of the best": row["share of the best"] >= 0.9,
            "p99 of the accepted within its deadline": p99 <= DEADLINE_SECONDS,
            "Retry-After within 2x of the truth (95 % of refusals)": within >= 0.95,
        },
        "rows": [row],
    }
