"""Requests of all kinds, so that every series has something to say."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import httpx

QUESTIONS = (
    ("How do I reset my password?", "How can I reset my password?", "How do I reset the password of mine?"),
    ("What is the capital of Portugal?", "What's the capital of Portugal?", "Tell me the capital of Portugal."),
    ("Who wrote Hamlet?", "Who is the author of Hamlet?", "Who has written Hamlet?"),
    ("How do I boil an egg?", "How can I boil an egg?", "How does one boil an egg?"),
    ("Why is the sky blue?", "What makes the sky blue?", "Why does the sky look blue?"),
)
"""Each with two other wordings."""


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


def paraphrased(url: str) -> Iterator[str]:
    """Questions and their other wordings, one after the other."""
    for question in QUESTIONS:
        for wording in question:
            yield chat(url, wording, tokens=60)
