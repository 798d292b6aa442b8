"""HAProxy with the retries that we ask Ray for: one sibling is asked, and only before a byte has left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from serving.placement.proxy_launcher import find_haproxy, refusal_options, write_launcher
from serving.placement.ray_runtime import (
    HAPROXY_BUFFER_BYTES,
    HAPROXY_OPTIONS,
    HAPROXY_RETRIES,
    HAPROXY_RETRY_ON,
    free_port,
)

CONFIG = """
global
    tune.bufsize {buffer}
defaults
    mode http
    timeout client 5s
    timeout server 5s
    timeout connect 1s
    option redispatch 1
    retry-on {retry_on}
    {options}
    retries {retries}
    balance roundrobin
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    {servers}
"""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
DEAD = b'HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\n{"no":"e"}'[:-1]
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"


@dataclass
class Replica:
    """Says the same to every request; b"" closes the connection instead."""

    answer: bytes
    asked: int = 0
    port: int = field(default=0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            length = re.search(rb"content-length: (\d+)", head.lower())
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(self.answer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def proxied(folder: Path, *replicas: Replica) -> AsyncIterator[str]:
    haproxy = find_haproxy()
    assert haproxy is not None
    async with contextlib.AsyncExitStack() as stack:
        for replica in replicas:
            server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
            await stack.enter_async_context(server)
            replica.port = server.sockets[0].getsockname()[1]
        port = free_port()
        servers = "\n    ".join(f"server s{n} 127.0.0.1:{replica.port}" for n, replica in enumerate(replicas))
        file = folder / "haproxy.cfg"
        write_launcher(folder, haproxy)
        options = "\n    ".join((*HAPROXY_OPTIONS, *refusal_options(folder, 1)))
        file.write_text(
            CONFIG.format(
                buffer=HAPROXY_BUFFER_BYTES,
                retry_on=HAPROXY_RETRY_ON,
                options=options,
                retries=HAPROXY_RETRIES,
                port=port,
                servers=servers,
            )
        )
        process = await asyncio.create_subprocess_exec(str(haproxy), "-db", "-q", "-f", str(file))
        try:
            async with asyncio.timeout(10):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        break
                    except OSError:
                        await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            await process.wait()


async def ask(url: str, content: bytes = b"{}") -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(url, content=content)


@pytest.mark.parametrize("content", [b"{}", b"w" * 100_000], ids=["short", "a long conversation"])
@pytest.mark.parametrize("broken", [DEAD, b""], ids=["engine dead", "killed"])
async def test_a_replica_that_cannot_answer_is_replaced_by_its_sibling(
    tmp_path: Path, broken: bytes, content: bytes
) -> None:
    dead, alive = Replica(broken), Replica(OK)
    async with proxied(tmp_path, dead, alive) as url:
        assert [(await ask(url, content)).status_code for _ in range(6)] == [200] * 6
    assert dead.asked > 0


async def test_with_no_sibling_able_the_replicas_own_words_come_through_after_one_more_try(tmp_path: Path) -> None:
    replicas = Replica(DEAD), Replica(DEAD), Replica(DEAD)
    async with proxied(tmp_path, *replicas) as url:
        answer = await ask(url)
    assert (answer.status_code, answer.headers["retry-after"], answer.text) == (503, "7", '{"no":"e"')
    assert sum(replica.asked for replica in replicas) == 2


@pytest.mark.parametrize("final", [BUSY, BEGUN], ids=["refused", "begun"])
async def test_what_has_been_answered_or_begun_is_not_asked_again(tmp_path: Path, final: bytes) -> None:
    replicas = Replica(final), Replica(final)
    async with proxied(tmp_path, *replicas) as url:
        if final is BUSY:
            assert (await ask(url)).status_code == 429
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                await ask(url)
    assert sum(replica.asked for replica in replicas) == 1


async def test_a_body_that_does_not_come_is_told_by_the_proxy_in_our_words(tmp_path: Path) -> None:
    replica = Replica(OK)
    async with proxied(tmp_path, replica) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n{")
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "request_timeout"
    assert replica.asked == 0
