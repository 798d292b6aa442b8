"""Latency of a semantic lookup by store size: ``python -m tests.bench.cache.latency [--sizes 1000 10000 100000]``.

Entries are unit vectors drawn at random in one partition (the worst case for the index: nothing is clustered); the
texts judged are real questions. Milliseconds; bytes an entry from Redis's own account, body and vector together.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cache.calibration import Calibrator, shipped_calibration
from cache.embedded import EmbeddedRedis
from cache.embedders import load_encoder
from cache.entry import CachedAnswer
from cache.identity import Address
from cache.judge import ConformalPolicy, GuardedJudge
from cache.judgement import Neighbour
from cache.redis_store import RedisStore
from cache.store import Budget, IndexSpec

PARTITION = "0" * 32
INDEX = IndexSpec("bench", 384, 10_000_000)
BODY = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"' + b"word " * 60 + b'"}}]}'


def summary(values: list[float]) -> dict[str, float]:
    return {"p50": float(np.percentile(values, 50)) * 1e3, "p99": float(np.percentile(values, 99)) * 1e3}


async def fill(store: RedisStore, first: int, size: int) -> None:
    rng = np.random.default_rng(first)

    async def put(number: int, vector: Any) -> None:
        address = Address(PARTITION, f"{number:064x}")
        text = f"How do I reset the password of account {number}?"
        answer = CachedAnswer(address, "t", "m", "m", 0.0, 1e12, BODY, text)
        await store.put(answer, 3600.0, Budget(60.0))
        await store.add(address, INDEX, vector, 3600.0, Budget(60.0))

    began = time.monotonic()
    for start in range(first, size, 64):
        vectors = rng.standard_normal((min(64, size - start), 384)).astype(np.float32)
        await asyncio.gather(*(put(start + i, vector) for i, vector in enumerate(vectors)))
        if start // 64 % 160 == 0 and start > first:
            left = (time.monotonic() - began) / (start - first) * (size - start)
            print(f"{start} of {size} entries, {left:.0f} s to go", file=sys.stderr, flush=True)


async def measure(lookups: int, store: RedisStore, encoder: Any, judge: GuardedJudge) -> dict[str, Any]:
    times: dict[str, list[float]] = {"embed": [], "search": [], "guard": [], "total": []}
    for number in range(lookups):
        text = f"How can I change the password of my account number {number + 10_000_000}?"
        t0 = time.perf_counter()
        vector = encoder.encode([text])[0]
        t1 = time.perf_counter()
        found, _ = await store.nearest(PARTITION, INDEX, vector, 5, Budget(60.0))
        t2 = time.perf_counter()
        judge.decide(text, [Neighbour(item.answer.text, item.similarity) for item in found])
        t3 = time.perf_counter()
        for name, seconds in (("embed", t1 - t0), ("search", t2 - t1), ("guard", t3 - t2), ("total", t3 - t0)):
            times[name].append(seconds)
    return {name: summary(each) for name, each in times.items()}


def pinned_to(cores: set[int]) -> None:
    """This process and its children, all their threads."""
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, cores)


async def run(sizes: list[int], lookups: int, keep: Callable[[list[dict[str, Any]]], None]) -> None:
    """One store that grows: filled on all cores, asked on one. ``keep`` has the rows after each size."""
    encoder = load_encoder()
    judge = GuardedJudge(ConformalPolicy(Calibrator(shipped_calibration(), 0.02)))
    rows: list[dict[str, Any]] = []
    cores = os.sched_getaffinity(0)
    with EmbeddedRedis() as redis:
        store = RedisStore(redis.url, secret=b"a secret of the bench")
        for first, size in pairwise((0, *sorted(sizes))):
            await fill(store, first, size)
            used = (await store.stats(Budget(60.0))).bytes_used or 0
            pinned_to({min(cores)})
            await measure(20, store, encoder, judge)
            times = await measure(lookups, store, encoder, judge)
            pinned_to(cores)
            rows.append({"entries": size, "bytes_an_entry": used / size} | times)
            keep(rows)
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--lookups", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(arguments.sizes, arguments.lookups, lambda rows: keep(rows, arguments.out)))


def keep(rows: list[dict[str, Any]], folder: Path) -> None:
    (folder / "latency.json").write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    lines = [
        "| entries | bytes an entry | embed p50 / p99 ms | search | guard | total |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = " | ".join(
            f"{row[name]['p50']:.2f} / {row[name]['p99']:.2f}" for name in ("embed", "search", "guard", "total")
        )
        lines.append(f"| {row['entries']} | {row['bytes_an_entry']:.0f} | {cells} |")
    text = "\n".join(lines) + "\n\nOne core, alone on the machine; the server beside it on the same core.\n"
    (folder / "latency.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
