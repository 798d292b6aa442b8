"""Requests of all kinds, so that every series has something to say."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import httpx


def chat(
    url: str,
    text: str,
    *,
    stream: bool = False,
    tokens: int = 24,
    headers: dict[str, str] | None = None,
    model: str = "simulated-1b",
) -> str:
    """Returns the cache outcome, or the status of a refusal."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": stream,
    }
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    return answer.headers["x-cache"] if answer.status_code == 200 else str(answer.status_code)


def mixed(url: str, requests: int = 48) -> Iterator[str]:
    """Misses, exact hits, streams, bypasses and refusals, eight at a time."""

    def one(number: int) -> str:
        kind = number % 6
        if kind == 0:
            return chat(url, "Say it again.", tokens=2000)
        if kind == 1:
            return chat(url, f"Stream number {number}.", stream=True, tokens=40)
        if kind == 2:
            return chat(url, f"Not stored {number}.", headers={"cache-control": "no-store"})
        if kind == 3:
            return chat(url, "Too long.", tokens=10**7)
        return chat(url, f"A question of its own, {number}. " + "word " * number, tokens=60)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        yield from pool.map(one, range(requests))
