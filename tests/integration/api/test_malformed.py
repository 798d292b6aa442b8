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

from tests.integration.api.conftest import Front, Opener

pytestmark = pytest.mark.redis

REQUESTS = 600
"""The short form; a multiple of it is a matter of time only."""
GOOD = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}'


def odd_body(rng: random.Random) -> bytes:
    kind = rng.randrange(10)
    if kind == 0:
        return GOOD[: rng.randrange(len(GOOD))]
    if kind == 1:
        return b"[" * rng.randrange(1, 100_000)
    if kind == 2:
        return GOOD.replace(b"Hi", b"\\u0000\\ud800" * rng.randrange(1, 50))
    if kind == 3:
        return GOOD.replace(b"2}", rng.choice([b"1e999", b"9" * 400, b"-1", b"NaN", b"true", b"2.5", b'"2"']) + b"}")
    if kind == 4:
        return rng.randbytes(rng.randrange(2000))
    if kind == 5:
        return GOOD.replace(b"user", rng.randbytes(8))
    if kind == 6:
        return b'{"model": "m", "messages": ' + b'[{"content":' * 500 + b"1" + b"}]" * 500 + b"}"
    if kind == 7:
        return GOOD.replace(b'"m"', rng.choice([b"null", b'""', b"{}", b'"' + b"m" * 5000 + b'"']))
    if kind == 8:
        return b'{"stream": true, "n": 10000000, ' + GOOD[1:]
    at = rng.randrange(len(GOOD))
    return GOOD[:at] + rng.randbytes(1) + GOOD[at + 1 :]


def odd_request(rng: random.Random) -> bytes:
    body = odd_body(rng)
    length = len(body)
    kind = rng.randrange(12)
    extra = b""
    if kind == 0:
        length += rng.randrange(1, 1000)
    elif kind == 1:
        length = max(0, length - rng.randrange(1, 50))
    elif kind == 2:
        extra = b"".join(b"x-flood-%d: %s\r\n" % (n, b"y" * 100) for n in range(rng.randrange(1, 600)))
    elif kind == 3:
        extra = b"content-length: 7\r\n"
    elif kind == 4:
        extra = b"transfer-encoding: chunked\r\n"
    elif kind == 5:
        extra = b"x-request-timeout: " + rng.choice([b"-1", b"nan", b"inf", b"0", b"x", b"1e-9"]) + b"\r\n"
    elif kind == 6:
        extra = b"x-wattgate-priority: " + rng.randbytes(4).hex().encode() + b"\r\n"
    elif kind == 7:
        extra = b"x-request-id: " + b"z" * 5000 + b"\r\n"
    path = rng.choice([b"/v1/chat/completions"] * 6 + [b"/v1/completions", b"/v1/%00", b"/v1/models/" + b"a" * 3000])
    method = rng.choice([b"POST"] * 8 + [b"GET", b"DELETE", b"BREW"])
    head = b"%s %s HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n" % (method, path)
    return head + b"content-length: %d\r\n" % length + extra + b"connection: close\r\n\r\n" + body


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
                raws = [odd_request(rng) for _ in range(20)]
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
            answer = await http.post(f"{replica.url}/v1/chat/completions", content=GOOD)
            assert answer.status_code == 200
            assert (await http.get(f"{replica.url}/healthz")).status_code == 200
