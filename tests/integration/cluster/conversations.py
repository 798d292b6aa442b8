"""Conversations over HTTP: each turn sends all that was said before, as chat clients do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from tests.integration.cluster.nodes import HEADERS

WORDS = ("grid", "wind", "solar", "load", "peak", "night", "turbine", "cable", "storage", "demand", "price", "battery")


@dataclass(frozen=True)
class Turn:
    conversation: int
    number: int
    prompt_tokens: int
    cached_tokens: int


def words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS, k=count))


async def converse(
    client: httpx.AsyncClient, url: str, number: int, turns: int, system: str, think_seconds: float
) -> list[Turn]:
    draw = random.Random(number)
    messages = [{"role": "system", "content": system}]
    done = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"{number}.{turn} {words(draw, 60)}"})
        body = {"model": "simulated-1b", "messages": messages, "max_tokens": 24, "temperature": 0}
        answer = await client.post(f"{url}/v1/chat/completions", json=body)
        answer.raise_for_status()
        said = answer.json()
        usage = said["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        done.append(Turn(number, turn, usage["prompt_tokens"], cached))
        messages.append(said["choices"][0]["message"])
        await asyncio.sleep(draw.uniform(0, 2 * think_seconds))
    return done


async def converse_all(
    url: str, conversations: int, turns: int, *, at_once: int, think_seconds: float = 0.0
) -> list[Turn]:
    """All share one system prompt, so that what is cached of it is the same with and without affinity.

    Without time to think, a client's next turn finds its own replica the least loaded: affinity by accident.
    """
    system = words(random.Random(-1), 120)
    gate = asyncio.Semaphore(at_once)

    async def one(client: httpx.AsyncClient, number: int) -> list[Turn]:
        async with gate:
            return await converse(client, url, number, turns, system, think_seconds)

    async with httpx.AsyncClient(headers=HEADERS | {"cache-control": "no-store"}, timeout=60) as client:
        turns_of = await asyncio.gather(*(one(client, number) for number in range(conversations)))
    return [turn for turns in turns_of for turn in turns]


def shares(turns: Sequence[Turn]) -> dict[str, float]:
    """Prompt tokens that were reused, of all and of those of later turns."""
    later = [turn for turn in turns if turn.number]
    return {
        "prefix_hit_ratio": sum(t.cached_tokens for t in turns) / sum(t.prompt_tokens for t in turns),
        "prefix_hit_ratio_of_later_turns": sum(t.cached_tokens for t in later) / sum(t.prompt_tokens for t in later),
        "requests": len(turns),
    }
