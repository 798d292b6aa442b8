"""Labelled pairs through the judge that serves: for each, an empty cache, A stored, B asked.

Conversations are judged as if their history had been seen before: on an empty cache the rule that a history is indexed
from its second request on (``conversation_sightings``) would make every one of them a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cache.admission import Limits, refuse_request, refuse_semantic
from cache.calibration import wilson
from cache.embedding import Vector
from cache.identity import CHAT_PATH, Identity, identify
from cache.json_lines import name_or_number, read_json_lines
from cache.judge import GuardedJudge
from cache.judgement import Neighbour, Verdict

_TENANT = "0" * 32
_MODEL = "eval"
_LIMITS = Limits()


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
    judge: GuardedJudge,
    encoder: BatchEncoder,
    progress: Callable[[int], None] | None = None,
) -> list[Decision]:
    """One decision a pair, in order. Never raises for odd texts."""
    identities = [(_identity(pair.a), _identity(pair.b)) for pair in pairs]
    texts = list(
        dict.fromkeys(
            identity.text
            for a, b in identities
            if a.partition_digest == b.partition_digest and a.exact_digest != b.exact_digest
            for identity in (a, b)
            if identity.text is not None
        )
    )
    vectors: dict[str, Vector | None] = {}
    for start in range(0, len(texts), 64):
        vectors.update(zip(texts[start : start + 64], encoder.encode_now(texts[start : start + 64]), strict=True))
        if progress is not None:
            progress(start)
    return [_decide(pair, a, b, judge, vectors) for pair, (a, b) in zip(pairs, identities, strict=True)]


def _identity(messages: list[dict[str, Any]]) -> Identity:
    return identify(tenant=_TENANT, path=CHAT_PATH, payload={"messages": messages}, model=_MODEL, variants=(_MODEL,))


def _decide(
    pair: LabelledPair, a: Identity, b: Identity, judge: GuardedJudge, vectors: dict[str, Vector | None]
) -> Decision:
    def decision(hit: bool, score: float, why: str, similarity: float | None = None) -> Decision:
        return Decision(pair.id, hit, score, why, pair.same_answer, pair.category, similarity)

    refused = refuse_request(CHAT_PATH, {"messages": pair.a}) or refuse_request(CHAT_PATH, {"messages": pair.b})
    if refused is not None:
        return decision(False, 0.0, f"admission:{refused.value}")
    if a.exact_digest == b.exact_digest:
        return decision(True, 1.0, "exact", 1.0)
    refused = refuse_semantic({}, a.text, _LIMITS) or refuse_semantic({}, b.text, _LIMITS)
    if refused is not None:
        return decision(False, 0.0, f"admission:{refused.value}")
    if a.text is None or b.text is None or a.partition_digest != b.partition_digest:
        return decision(False, 0.0, "partition")
    stored, asked = vectors.get(a.text), vectors.get(b.text)
    if stored is None or asked is None:
        return decision(False, 0.0, "window")
    similarity = float(np.clip(np.dot(stored, asked), -1.0, 1.0))
    verdict: Verdict = judge.decide(b.text, [Neighbour(a.text, similarity, entry_id=str(pair.id), model=_MODEL)])
    why = f"guard:{verdict.guard}" if verdict.guard else verdict.why
    return decision(verdict.serve, verdict.score, why, similarity)


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
