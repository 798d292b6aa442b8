"""Labelled pairs through the cache that serves: for each, an empty one in memory, A stored, B asked.

Conversations are judged as if their history had been seen before: on an empty cache the rule that a history is indexed
from its second request on (``conversation_sightings``) would make every one of them a miss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cache.admission import refuse_semantic
from cache.calibration import wilson
from cache.control import Outcome
from cache.embedding import Embedder, Vector
from cache.identity import CHAT_PATH, Identity, identify
from cache.json_lines import name_or_number, read_json_lines
from cache.judgement import Judge
from cache.lookup import CacheRequest, Lookup
from cache.memory import MemoryStore
from cache.settings import CacheSettings
from cache.tiers import ResponseCache

_TENANT = "0" * 32
_MODEL = "eval"
_SECRET = b"guards nothing: one tenant, in memory"
_SETTINGS = CacheSettings(conversation_sightings=1)
_ANSWER = {
    "id": "eval",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}],
}
_BATCH = 64


class BatchEncoder(Protocol):
    """Texts to unit vectors; None outside the window."""

    def encode_now(self, texts: Sequence[str]) -> list[Vector | None]: ...


@dataclass(frozen=True, slots=True)
class LabelledPair:
    id: str | int | float
    """As the file has it."""
    a: list[dict[str, Any]]
    b: list[dict[str, Any]]
    same_answer: bool
    category: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    id: str | int | float
    hit: bool
    score: float
    why: str
    same_answer: bool
    category: str | None
    similarity: float | None = None

    def line(self) -> dict[str, Any]:
        return {"id": self.id, "hit": self.hit, "score": round(self.score, 6), "why": self.why}


class PairsError(ValueError):
    """A line that is no pair: names the line and the mend."""


def read_pairs(lines: Iterable[bytes | str]) -> list[LabelledPair]:
    """Blank lines are skipped; keys other than id, a, b, same_answer and category are ignored.

    Raises:
        PairsError: naming the line, what is wrong, and what was expected.
    """
    out: list[LabelledPair] = []
    for number, data in read_json_lines(lines, PairsError):
        out.append(_pair(data, number))
    if not out:
        raise PairsError('no pairs: expected lines {"id", "a", "b", "same_answer"}')
    return out


def _pair(data: Any, number: int) -> LabelledPair:
    if not isinstance(data, dict):
        raise PairsError(f'line {number}: expected an object {{"id", "a", "b", "same_answer"}}')
    for key in ("id", "a", "b", "same_answer"):
        if key not in data:
            raise PairsError(f"line {number}: `{key}` is missing")
    if not isinstance(data["same_answer"], bool):
        raise PairsError(f"line {number}: `same_answer` must be true or false")
    if not name_or_number(data["id"]):
        raise PairsError(f"line {number}: `id` must be a string or a finite number")
    category = data.get("category")
    return LabelledPair(
        data["id"],
        _messages(data["a"], "a", number),
        _messages(data["b"], "b", number),
        data["same_answer"],
        str(category) if isinstance(category, str | int | float) else None,
    )


def _messages(value: Any, key: str, number: int) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
        return value
    raise PairsError(f"line {number}: `{key}` must be a string or a list of messages, each with `role` and `content`")


def evaluate(
    pairs: Sequence[LabelledPair],
    judge: Judge,
    encoder: BatchEncoder,
    progress: Callable[[int], None] | None = None,
) -> list[Decision]:
    """One decision a pair, in order. Never raises for odd texts."""
    texts: dict[str, None] = {}
    for pair in pairs:
        a, b = _identity(pair.a), _identity(pair.b)
        if a.partition_digest == b.partition_digest and a.exact_digest != b.exact_digest:
            texts.update(dict.fromkeys(text for text in (a.text, b.text) if text is not None))
    wanted = list(texts)
    vectors: dict[str, Vector | None] = {}
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        vectors.update(zip(batch, encoder.encode_now(batch), strict=True))
        if progress is not None:
            progress(start)
    return asyncio.run(_decide_all(pairs, judge, _Embedded(vectors)))


class _Embedded:
    """The ``Embedder`` seam over vectors that are there already, made in batches and without a deadline."""

    id, window_tokens = "eval", 0

    def __init__(self, vectors: dict[str, Vector | None]) -> None:
        self._vectors = vectors
        self.dimension = next((len(vector) for vector in vectors.values() if vector is not None), 1)

    async def embed(self, text: str) -> Vector | None:
        return self._vectors.get(text)


async def _decide_all(pairs: Sequence[LabelledPair], judge: Judge, embedder: Embedder) -> list[Decision]:
    return [await _decide(pair, judge, embedder) for pair in pairs]


async def _decide(pair: LabelledPair, judge: Judge, embedder: Embedder) -> Decision:
    cache = ResponseCache(
        secret=_SECRET, store=MemoryStore(), embedder=embedder, judge=judge, settings=_SETTINGS, monotonic=lambda: 0.0
    )
    try:
        first = await cache.lookup(_request(pair.a))
        await cache.store(first, _ANSWER, variant=_MODEL)
        second = await cache.lookup(_request(pair.b))
    finally:
        await cache.close()
    score: float
    similarity: float | None
    if second.hit and second.tier != "semantic":
        score, why, similarity = 1.0, "exact", 1.0
    elif second.judged is not None:
        score, similarity = second.score or 0.0, second.similarity
        why = f"guard:{second.guard}" if second.guard else "served" if second.hit else second.why
    else:
        score, why, similarity = 0.0, _why_alone(first, second), None
    return Decision(pair.id, second.hit, score, why, pair.same_answer, pair.category, similarity)


def _why_alone(first: Lookup, second: Lookup) -> str:
    """Why B met no neighbour, of which A was the only one it could have met."""
    for lookup in (first, second):
        if lookup.outcome is Outcome.BYPASS:
            return f"admission:{lookup.why}"
    for lookup in (first, second):
        text = lookup.identity.text if lookup.identity else None
        refused = refuse_semantic(lookup.request.payload, text, _SETTINGS.limits)
        if refused is not None:
            return f"admission:{refused.value}"
    if first.partition != second.partition:
        return "partition"
    return "window" if second.why in ("absent", "not_embedded", "no_neighbours") else second.why


def _request(messages: list[dict[str, Any]]) -> CacheRequest:
    return CacheRequest(
        tenant=_TENANT, path=CHAT_PATH, payload={"messages": messages}, model=_MODEL, variants=(_MODEL,), now=0.0
    )


def _identity(messages: list[dict[str, Any]]) -> Identity:
    return identify(tenant=_TENANT, path=CHAT_PATH, payload={"messages": messages}, model=_MODEL, variants=(_MODEL,))


def rate(count: int, total: int) -> dict[str, Any]:
    low, high = wilson(count, total)
    return {"rate": count / total if total else None, "count": count, "total": total, "wilson": [low, high]}


def report(decisions: Sequence[Decision]) -> dict[str, Any]:
    """Hit rate over pairs that one answer fits, wrong rate over the others, and the budget's own ratio."""
    served = [decision for decision in decisions if decision.hit]
    categories: dict[str, list[Decision]] = {}
    for decision in decisions:
        if decision.category is not None:
            categories.setdefault(decision.category, []).append(decision)
    whys: dict[str, int] = {}
    for decision in decisions:
        whys[decision.why] = whys.get(decision.why, 0) + 1
    return {
        "pairs": len(decisions),
        "hits": _hits(decisions),
        "wrong": _wrong(decisions),
        "wrong_of_served": rate(sum(not decision.same_answer for decision in served), len(served)),
        "categories": {
            name: {"hits": _hits(members), "wrong": _wrong(members)} for name, members in sorted(categories.items())
        },
        "why": dict(sorted(whys.items(), key=lambda item: -item[1])),
    }


def _hits(decisions: Sequence[Decision]) -> dict[str, Any]:
    wanted = [decision for decision in decisions if decision.same_answer]
    return rate(sum(decision.hit for decision in wanted), len(wanted))


def _wrong(decisions: Sequence[Decision]) -> dict[str, Any]:
    traps = [decision for decision in decisions if not decision.same_answer]
    return rate(sum(decision.hit for decision in traps), len(traps))
