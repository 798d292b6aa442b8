"""What metering costs: the same load with it and without it, in turns, on one engine.

Off takes vLLM's own output processor (no recorder), sends no reports, closes no windows and makes no receipts' figures.
On is all of it in one process; in production the node meter is a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student_t

from cache.control import CacheControl
from metering.receipt import Receipt
from metering.work import EngineSteps, Served
from serving.call import Call
from serving.engines.vllm import VllmEngine, _record_steps
from serving.meter_link import Trace
from tests.bench.metering.mixed import PATH
from tests.bench.metering.own_cost import cpu_seconds
from tests.bench.metering.stack import Stack

TOKENS = 32


class NoMeter:
    """A meter link that keeps nothing."""

    def trace(self, request_id: str, tenant: str, model: str) -> Trace:
        return Trace(request_id, tenant, model, lambda record: None)

    def steps(self, steps: EngineSteps) -> None:
        return None

    def finished(self, request_id: str, cache: str = "MISS") -> None:
        return None

    def served(self, answer: Served) -> None:
        return None

    def provisional(self, trace: Trace, cache: str) -> Receipt:
        return Receipt(trace.request_id, cache=cache)


def switch(made: Stack, on: bool) -> None:
    """Only between rounds: nothing may be in the engine."""
    engine = made.engine
    assert isinstance(engine, VllmEngine)
    processor = engine._llm.output_processor
    if on:
        _record_steps(processor, engine._recorder)
    else:
        for name in ("add_request", "process_outputs", "abort_requests"):
            with contextlib.suppress(AttributeError):
                delattr(processor, name)
    made.gateway.runs.meter = made.link if on else NoMeter()
    made.meter(on)


async def one(made: Stack, number: int) -> None:
    payload = {
        "model": made.engine.models()[0].name,
        "messages": [{"role": "user", "content": f"{number} {time.perf_counter_ns()}: a story about a lamp."}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
    }
    now = time.monotonic()
    call = Call(f"o-{number}-{now}", "bench", PATH, payload, now, now + 600, CacheControl(no_store=True))
    async with made.gateway.open(call) as reply:
        async for _ in reply.frames:
            pass


async def round_of(made: Stack, *, requests: int, clients: int) -> tuple[float, float]:
    """(tokens/s, CPU seconds per token)."""
    numbers = iter(range(requests))

    async def client() -> None:
        for number in numbers:
            await one(made, number)

    before, started = cpu_seconds(), time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.monotonic() - started
    return requests * TOKENS / seconds, (cpu_seconds() - before) / (requests * TOKENS)


async def overhead(made: Stack, *, pairs: int, requests: int, clients: int) -> dict[str, Any]:
    """On and off in turns, the order swapped every pair."""
    for on in (True, False):
        switch(made, on)
        await round_of(made, requests=clients, clients=clients)
    rows: list[dict[str, tuple[float, float]]] = []
    for pair in range(pairs):
        row = {}
        for on in (True, False) if pair % 2 == 0 else (False, True):
            switch(made, on)
            await asyncio.sleep(0.2)
            row["on" if on else "off"] = await round_of(made, requests=requests, clients=clients)
        rows.append(row)
    switch(made, True)
    return {
        "pairs": pairs,
        "requests": requests,
        "clients": clients,
        "tokens_per_request": TOKENS,
        "tokens_per_second": {which: [row[which][0] for row in rows] for which in ("on", "off")},
        "cpu_seconds_per_token": {which: [row[which][1] for row in rows] for which in ("on", "off")},
        "throughput_on_over_off": interval([row["on"][0] / row["off"][0] for row in rows]),
        "cpu_on_over_off": interval([row["on"][1] / row["off"][1] for row in rows]),
    }


def interval(ratios: list[float]) -> dict[str, float]:
    """Geometric mean of paired ratios with its 95 % interval (Student's t on the logarithms)."""
    logs = [math.log(ratio) for ratio in ratios]
    half = float(student_t.ppf(0.975, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    return {"mean": math.exp(mean(logs)), "low": math.exp(mean(logs) - half), "high": math.exp(mean(logs) + half)}


def table(result: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    rows = []
    for name, key in (("tokens/s", "tokens_per_second"), ("CPU-seconds per token", "cpu_seconds_per_token")):
        ratio = result["throughput_on_over_off" if key == "tokens_per_second" else "cpu_on_over_off"]
        rows.append(
            f"| {name} | {mean(result[key]['on']):.4g} | {mean(result[key]['off']):.4g} | "
            f"{ratio['mean']:.4f} ({ratio['low']:.4f} to {ratio['high']:.4f}) |"
        )
    head = "| | metering on | off | on over off, 95 % interval |\n| --- | --- | --- | --- |"
    return "\n".join([head, *rows])
