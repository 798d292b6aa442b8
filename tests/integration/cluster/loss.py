"""What becomes of requests when their node goes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpx

from tests.integration.cluster.nodes import HEADERS, Cluster
from tests.integration.serving.gateway_process import until


@dataclass(frozen=True)
class Fate:
    kind: str
    """unary or stream."""
    status: int | None = None
    """None: the connection broke before an answer began."""
    begun_before: bool = False
    """Whether a first byte of the answer had come before the node went."""
    complete: bool = False
    refusal: str = ""
    """What was said instead of an answer."""
    seconds: float = 0.0


async def ask(client: httpx.AsyncClient, url: str, number: int, stream: bool, gone: Callable[[], bool]) -> Fate:
    fate, started = Fate("stream" if stream else "unary"), time.monotonic()
    messages = [{"role": "user", "content": f"Request {number} tells of node {number * 7919}."}]
    body = {"model": "simulated-1b", "messages": messages, "max_tokens": 120, "stream": stream, "ignore_eos": True}
    last = b""
    try:
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            fate = replace(fate, status=answer.status_code, begun_before=not gone())
            async for part in answer.aiter_bytes():
                last = (last + part)[-65536:]
    except httpx.TransportError:
        pass
    if fate.status == 200:
        fate = replace(fate, complete=last.endswith(b"data: [DONE]\n\n") if stream else _is_answer(last))
    elif fate.status is not None:
        fate = replace(fate, refusal=last[:200].decode(errors="replace"))
    return replace(fate, seconds=time.monotonic() - started)


def _is_answer(body: bytes) -> bool:
    try:
        return bool(json.loads(body)["choices"][0]["finish_reason"])
    except (ValueError, KeyError, IndexError):
        return False


async def lose_a_node(cluster: Cluster, lose: Callable[[], None], requests: int) -> list[Fate]:
    """Half unary, half streams; the node goes when every one of them is inside a replica, running or waiting."""
    targets = cluster.targets()
    happened = False

    def inside() -> float:
        gauges = ("wattgate_running_requests", "wattgate_waiting_requests")
        return sum(cluster.metric(gauge, target) for target in targets for gauge in gauges)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(headers=HEADERS | {"cache-control": "no-store"}, timeout=120, limits=limits) as client:
        running = [
            asyncio.create_task(ask(client, cluster.url, number, number % 4 < 2, lambda: happened))
            for number in range(requests)
        ]
        await asyncio.to_thread(until, lambda: inside() >= requests, 20, "all requests inside")
        happened = True
        await asyncio.to_thread(lose)
        return list(await asyncio.gather(*running))
