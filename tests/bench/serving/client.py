"""A closed-loop HTTP client with next to no cost of its own: raw keep-alive connections, no parsing but lengths."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

CHUNKED_END = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Measured:
    """One closed-loop run."""

    clients: int
    requests: int
    seconds: float
    latencies_seconds: tuple[float, ...]
    failures: int

    @property
    def per_second(self) -> float:
        return (self.requests - self.failures) / self.seconds

    def quantile(self, share: float) -> float:
        ordered = sorted(self.latencies_seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Connection:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and raw body (chunked framing left in)."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=2**20)
        assert self._reader is not None
        head = (
            f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer none\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        raw = await self._reader.readuntil(b"\r\n\r\n")
        status = int(raw[9:12])
        lower = raw.lower()
        if b"transfer-encoding: chunked" in lower:
            out = b""
            while not out.endswith(CHUNKED_END):
                piece = await self._reader.read(65536)
                if not piece:
                    raise ConnectionError("cut off")
                out += piece
        else:
            at = lower.index(b"content-length:") + 15
            out = await self._reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))
        if b"connection: close" in lower:
            self.close()
        return status, out

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


async def closed_loop(
    url: str,
    path: str,
    bodies: Callable[[int], bytes],
    *,
    clients: int,
    requests: int,
) -> Measured:
    """``requests`` in all, ``clients`` at a time; ``bodies`` gives the n-th request's."""
    numbers = iter(range(requests))
    latencies: list[float] = []
    failures = 0

    async def client() -> None:
        nonlocal failures
        connection = Connection(url)
        for number in numbers:
            body = bodies(number)
            started = time.perf_counter()
            status, _ = await connection.post(path, body)
            latencies.append(time.perf_counter() - started)
            failures += status != 200
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Measured(clients, requests, time.perf_counter() - started, tuple(latencies), failures)
