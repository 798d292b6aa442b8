"""Requests that no client should send: each is refused or dropped, none is a 5xx, nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import Counter

import httpx
import psutil
import pytest

from tests.bench.faults.malformed import CHAT, odd_request
from tests.integration.api.conftest import Front, Opener

pytestmark = pytest.mark.redis

REQUESTS = 600
"""The short form; a multiple of it is a matter of time only."""


async def throw(front: Front, raw: bytes, cut: int | None) -> int | None:
    """Send (up to ``cut``) and read the status, if one comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    try:
        writer.write(raw if cut is None else raw[:cut])
        with contextlib.suppress(OSError):
            await writer.drain()
        if cut is not None:
            return None
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                line = await reader.readline()
                return int(line.split()[1]) if line else None
        return None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_malformed_requests_leave_the_gateway_as_it_was(front: Opener) -> None:
    rng = random.Random(20)
    async with front(access={"default_tenant": {"limits": {"concurrent_requests": 50}}}) as replica:
        process = psutil.Process()

        async def wave(count: int) -> Counter[int | None]:
            statuses: Counter[int | None] = Counter()
            for _ in range(count // 20):
                raws = [odd_request(rng).raw for _ in range(20)]
                cuts = [rng.randrange(len(raw)) if rng.random() < 0.25 else None for raw in raws]
                statuses.update(
                    await asyncio.gather(*(throw(replica, raw, cut) for raw, cut in zip(raws, cuts, strict=True)))
                )
            return statuses

        await wave(100)
        gc.collect()
        before, files = process.memory_info().rss, process.num_fds()
        statuses = await wave(REQUESTS)
        assert [status for status in statuses if status is not None and status >= 500] == []
        assert statuses[400] > REQUESTS / 20
        async with asyncio.timeout(20):
            while not replica.settled() or process.num_fds() > files + 2:  # noqa: ASYNC110  (another side of sockets)
                await asyncio.sleep(0.05)
        gc.collect()
        assert process.memory_info().rss - before < 64 * 1024 * 1024
        async with httpx.AsyncClient() as http:
            answer = await http.post(f"{replica.url}/v1/chat/completions", content=CHAT)
            assert answer.status_code == 200
            assert (await http.get(f"{replica.url}/healthz")).status_code == 200
