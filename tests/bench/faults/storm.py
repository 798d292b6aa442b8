"""A storm of malformed requests against a running gateway, through HAProxy: what comes back, and what is left.

    python -m tests.bench.faults.storm --requests 10000 --out tests/bench/faults/results

Random malformed requests; a good one cut at each of its bytes and its answer left at each of its bytes; clients that
drip a byte now and then, while good requests are timed beside them. Afterwards: alive, gauges at zero, memory,
descriptors and books as before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from tests.bench.faults.malformed import CHAT, odd_request
from tests.integration.serving.gateway_process import GatewayProcess

AT_ONCE = 32
ANSWER_SECONDS = 30.0
"""Without an answer by then a complete request counts as hung."""
CONFIG = """
engine: {kind: simulated, served_model_name: m, simulated: {step_seconds: 0.001, prefill_seconds_per_token: 0.0}}
embeddings: {enabled: true}
server: {port: 0, request_timeout_seconds: 10}
access: {default_tenant: {limits: {concurrent_requests: 200}}}
"""
HELD = ("wattgate_running_requests", "wattgate_waiting_requests")


@dataclass(slots=True)
class Seen:
    """What the storm met."""

    statuses: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """The first requests that got a 5xx or no answer at all, as text."""
    hung: int = 0

    def take(self, status: int | None, raw: bytes, complete: bool) -> None:
        self.statuses[str(status)] += 1
        if complete and status is None:
            self.hung += 1
        if (status is not None and status >= 500) or (complete and status is None):
            self.failures.append(f"{status}: {raw[:300]!r}")


@dataclass(frozen=True, slots=True)
class Left:
    """What the gateway's processes hold."""

    replica_rss_mib: float
    haproxy_rss_mib: float
    descriptors: int

    @classmethod
    def of(cls, gateway: GatewayProcess) -> Left:
        below = psutil.Process(gateway.process.pid).children(recursive=True)
        named = [(" ".join([process.name(), *process.cmdline()]), process) for process in below]
        replicas = [process for name, process in named if "ServeReplica" in name]
        proxies = [process for name, process in named if process.name() == "haproxy"]
        assert replicas
        assert proxies

        def mib(processes: Iterable[psutil.Process]) -> float:
            return round(sum(process.memory_info().rss for process in processes) / 2**20, 1)

        return cls(mib(replicas), mib(proxies), sum(process.num_fds() for process in (*replicas, *proxies)))


class Target:
    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self.host, self.port = parts.hostname, parts.port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)


async def throw(target: Target, raw: bytes, *, complete: bool, cut: int | None = None) -> int | None:
    """Send (up to ``cut``, then leave) and read the status, if one comes."""
    reader, writer = await target.connect()
    try:
        writer.write(raw if cut is None else raw[:cut])
        with contextlib.suppress(OSError):
            await writer.drain()
        if cut is not None:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS if complete else 0.5):
                line = await reader.readline()
        except TimeoutError:
            return None
        except OSError:
            line = b""
        # a close without a word is an answer to what is no HTTP
        return int(line.split()[1]) if line.startswith(b"HTTP/") else 0
    finally:
        await _close(writer)


async def leave_answer_at(target: Target, raw: bytes, count: int) -> None:
    """Read so many bytes of the answer, then reset the connection."""
    reader, writer = await target.connect()
    writer.write(raw)
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(ANSWER_SECONDS):
            await reader.readexactly(count)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def drip(target: Target, raw: bytes, first: int, until: Callable[[], bool]) -> float | None:
    """Send ``first`` bytes, then one every half second; seconds until the other side had enough, None if never."""
    reader, writer = await target.connect()
    began = time.monotonic()
    try:
        writer.write(raw[:first])
        for at in range(first, len(raw) - 1):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await reader.read(1)
                    return time.monotonic() - began
            if until():
                return None
            writer.write(raw[at : at + 1])
            await writer.drain()
        return None
    except OSError:
        return time.monotonic() - began
    finally:
        await _close(writer)


def good(stream: bool = False, tokens: int = 2) -> bytes:
    body = CHAT.replace(b": 2}", b": %d, " % tokens + (b'"stream": true}' if stream else b'"stream": false}'))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
    rest = b"cache-control: no-store\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    return head + rest + body


async def in_waves(calls: Iterable[Any]) -> None:
    """At most ``AT_ONCE`` of the coroutines at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(call: Any) -> None:
        async with gate:
            await call

    pending: set[asyncio.Task[None]] = set()
    for call in calls:
        pending.add(asyncio.create_task(one(call)))
        if len(pending) >= 4 * AT_ONCE:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    await asyncio.gather(*pending)


async def random_requests(target: Target, rng: random.Random, count: int, seen: Seen) -> None:
    async def one() -> None:
        odd = odd_request(rng)
        cut = rng.randrange(len(odd.raw)) if rng.random() < 0.15 else None
        status = await throw(target, odd.raw, complete=odd.complete, cut=cut)
        seen.take(status, odd.raw, odd.complete and cut is None)

    await in_waves(one() for _ in range(count))


async def at_every_byte(target: Target, seen: Seen, step: int = 1) -> int:
    """A request cut, and an answer left, at every ``step``-th byte; how many."""
    asked = good(stream=True, tokens=8)
    cuts = range(0, len(asked), step)
    await in_waves(throw(target, asked, complete=False, cut=cut) for cut in cuts)
    leaves = range(0, 1200, step)
    await in_waves(leave_answer_at(target, asked, count) for count in leaves)
    seen.statuses["left"] += len(cuts) + len(leaves)
    return len(cuts) + len(leaves)


async def slow_loris(target: Target, clients: int) -> dict[str, Any]:
    """Half of the clients drip their headers, half their bodies; good requests go on beside them."""
    raw = good(tokens=1).replace(b"Hi", b"H" * 2000)
    body_starts = raw.index(b"\r\n\r\n") + 5
    limit = time.monotonic() + 60
    loris = [
        asyncio.create_task(drip(target, raw, 10 if number % 2 else body_starts, lambda: time.monotonic() > limit))
        for number in range(clients)
    ]
    spent: list[float] = []
    while not all(task.done() for task in loris):
        began = time.monotonic()
        status = await throw(target, good(), complete=True)
        assert status == 200, f"a good request beside slow ones got {status}"
        spent.append(time.monotonic() - began)
        await asyncio.sleep(0.2)
    ends = [task.result() for task in loris]
    cut = sorted(end for end in ends if end is not None)
    return {
        "clients": clients,
        "cut_off": len(cut),
        "longest_hold_seconds": round(cut[-1], 1) if cut else None,
        "good_requests_beside": len(spent),
        "slowest_good_ms": round(1000 * max(spent), 1),
    }


async def storm(gateway: GatewayProcess, requests: int, seed: int, *, loris: int, step: int = 1) -> dict[str, Any]:
    """All of it; the report, with what is wrong under ``failures``."""
    target, rng, seen = Target(gateway.url), random.Random(seed), Seen()
    # what is loaded and grown once is not a leak
    await random_requests(target, rng, max(200, requests // 10), Seen())
    await at_every_byte(target, Seen(), 10)
    before, began = Left.of(gateway), time.monotonic()
    bytewise = await at_every_byte(target, seen, step)
    await random_requests(target, rng, max(0, requests - bytewise), seen)
    slow = await slow_loris(target, loris)
    held = {name: await _falls_to_zero(gateway, name) for name in HELD}
    after = await _settled(gateway, before)
    failures = seen.failures[:20]
    async with httpx.AsyncClient(timeout=30) as client:
        alive = (await client.get(f"{gateway.url}/healthz")).status_code
        answered = (await client.post(f"{gateway.url}/v1/chat/completions", content=CHAT)).status_code
    failures += [f"{name} is {value} after the storm" for name, value in held.items() if value]
    if (alive, answered) != (200, 200):
        failures.append(f"after the storm: health {alive}, a good request {answered}")
    if slow["cut_off"] < loris:
        failures.append(f"{loris - slow['cut_off']} slow clients were never cut off")
    difference = gateway.metric("wattgate_books_difference_joules")
    if difference:
        failures.append(f"the books differ by {difference} J")
    return {
        "requests": requests,
        "seconds": round(time.monotonic() - began, 1),
        "statuses": dict(sorted(seen.statuses.items())),
        "hung": seen.hung,
        "server_errors": sum(count for status, count in seen.statuses.items() if status[0] == "5"),
        "slow_loris": slow,
        "before": asdict(before),
        "after": asdict(after),
        "held_after": held,
        "books_difference_joules": difference,
        "failures": failures,
    }


async def _falls_to_zero(gateway: GatewayProcess, name: str) -> float:
    value = await asyncio.to_thread(gateway.metric, name)
    for _ in range(100):
        if value == 0:
            break
        await asyncio.sleep(0.2)
        value = await asyncio.to_thread(gateway.metric, name)
    return value


async def _settled(gateway: GatewayProcess, before: Left) -> Left:
    """When the connections of those who left are gone from both sides."""
    after = Left.of(gateway)
    for _ in range(100):
        if after.descriptors <= before.descriptors + 10:
            break
        await asyncio.sleep(0.2)
        after = Left.of(gateway)
    return after


def started(folder: Path) -> GatewayProcess:
    file = folder / "gateway.yaml"
    file.write_text(CONFIG)
    return GatewayProcess("--config", str(file)).wait_ready()


def table(report: dict[str, Any]) -> str:
    before, after, slow = report["before"], report["after"], report["slow_loris"]
    statuses = ", ".join(f"{status}: {count}" for status, count in report["statuses"].items())
    rows = [
        ("requests", report["requests"]),
        ("statuses (None: left or incomplete, 0: closed without a word)", statuses),
        ("server errors (5xx)", report["server_errors"]),
        ("complete requests without an answer", report["hung"]),
        ("memory of the replicas before, after", f"{before['replica_rss_mib']}, {after['replica_rss_mib']} MiB"),
        ("memory of HAProxy before, after", f"{before['haproxy_rss_mib']}, {after['haproxy_rss_mib']} MiB"),
        ("descriptors before, after", f"{before['descriptors']}, {after['descriptors']}"),
        ("running, waiting afterwards", ", ".join(str(value) for value in report["held_after"].values())),
        ("books' difference", f"{report['books_difference_joules']} J"),
        ("slow clients cut off", f"{slow['cut_off']} of {slow['clients']}, after {slow['longest_hold_seconds']} s"),
        ("slowest good request beside them", f"{slow['slowest_good_ms']} ms of {slow['good_requests_beside']}"),
        ("failures", "; ".join(report["failures"]) or "none"),
    ]
    lines = ["| measured | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    machine = report["machine"]
    head = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; `{report['command']}`, {report['seconds']} s."
    )
    return f"# Malformed requests through HAProxy\n\n{head}\n\n" + "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    text = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--loris", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        gateway = started(Path(folder))
        try:
            report = asyncio.run(storm(gateway, options.requests, options.seed, loris=options.loris))
        finally:
            gateway.stop()
    report |= {"machine": machine(), "command": f"python -m tests.bench.faults.storm --requests {options.requests}"}
    print(table(report))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "storm.json").write_text(json.dumps(report, indent=2) + "\n")
        (options.out / "storm.md").write_text(table(report))
    sys.exit(bool(report["failures"]))


if __name__ == "__main__":
    main()
