"""The grey zone: a neighbour that the threshold just refused, put before the served model itself as one yes or no.

Asked only where the expected saving exceeds the cost. Both are counted in tokens that the model works through, which
is what FLOPs are proportional to: the question's own prompt and one token against the stored answer's prompt and
completion, times the score, which is the calibrated probability that one answer fits both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cache.control import Outcome
from cache.entry import CachedAnswer
from cache.lookup import Lookup
from serving.metrics import Metrics

Ask = Callable[[Lookup, dict[str, Any]], Awaitable[dict[str, Any] | None]]
"""Answers a chat payload on the lookup's model, booked to its tenant; None where there was no room."""
VERIFIED = "verified"
"""Why a lookup is a hit that the served model, and not the threshold, let through."""
_CHARACTERS_A_TOKEN = 3
"""Of the question's prompt, on the dear side: English has about four, other languages fewer."""
_QUESTION = """Two users asked:

1: {stored}

2: {asked}

Would exactly the same answer be right and complete for both? Every number, name, unit, date, negation, condition and \
requested format must agree. Reply with one word, yes or no."""


class GreyZone:
    """``floor``: scores below it are never asked about."""

    def __init__(self, *, floor: float, metrics: Metrics) -> None:
        self._floor = floor
        self._metrics = metrics

    async def resolve(self, lookup: Lookup, ask: Ask) -> bool:
        """True where the model said yes; the lookup is then a semantic hit. Whatever goes wrong is a no."""
        found = self._candidate(lookup)
        if found is None:
            return False
        stored, asked, answer = found
        payload = question(str(lookup.request.payload.get("model", lookup.request.model)), stored, asked)
        if not self._worth_it(lookup.score or 0.0, payload, answer):
            self._count("too_dear")
            return False
        reply = await ask(lookup, payload)
        if reply is None:
            self._count("no_room")
            return False
        said = _word(reply)
        self._count(said)
        if said != "yes":
            return False
        lookup.answer, lookup.tier, lookup.why = answer, "semantic", VERIFIED
        lookup.outcome = Outcome.HIT_SEMANTIC
        lookup.age_seconds = max(0.0, lookup.request.now - answer.created_seconds)
        return True

    def _candidate(self, lookup: Lookup) -> tuple[str, str, CachedAnswer] | None:
        """(stored question, the one asked, answer) where the threshold alone refused; never where a guard did."""
        if lookup.why != "score" or lookup.guard is not None or (lookup.score or 0.0) < self._floor:
            return None
        if lookup.identity is None or lookup.identity.text is None or lookup.identity.conversation:
            return None
        if lookup.judged is None:
            return None
        neighbour, answer = lookup.judged
        return neighbour.text, lookup.identity.text, answer

    @staticmethod
    def _worth_it(score: float, payload: Mapping[str, Any], answer: CachedAnswer) -> bool:
        usage = answer.body().get("usage") or {}
        saved = sum(int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        return score * saved > len(payload["messages"][0]["content"]) / _CHARACTERS_A_TOKEN + 1

    def _count(self, outcome: str) -> None:
        self._metrics.add("wattgate_cache_grey_zone_total", 1, outcome)


def question(model: str, stored: str, asked: str) -> dict[str, Any]:
    """The payload that puts two questions before ``model``: one token, yes or no."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": _QUESTION.format(stored=stored, asked=asked)}],
        "temperature": 0.0,
        "max_tokens": 1,
        "structured_outputs": {"choice": ["yes", "no"]},
    }


def _word(reply: Mapping[str, Any]) -> str:
    """``yes``, ``no``, or ``unclear``."""
    try:
        said = str(reply["choices"][0]["message"]["content"]).strip().casefold()
    except (KeyError, IndexError, TypeError):
        return "unclear"
    if said in ("y", "ye", "yes"):
        return "yes"
    return "no" if said in ("n", "no") else "unclear"
