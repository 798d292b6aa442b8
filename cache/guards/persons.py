"""Whose: mine, yours, his, hers; and when: was against is."""

from __future__ import annotations

from cache.guards.comparison import Comparison

_GENERIC_FRAMES = frozenset({"howto", "yesno"})
"""How do you reset your phone asks what how do I reset my phone asks."""


def persons(pair: Comparison) -> str | None:
    if pair.words is None:
        return None
    a, b = pair.a.persons, pair.b.persons
    for mine, other in ((a, b), (b, a)):
        if "third" in mine and "third" not in other and other & {"first", "second", "self"} and not mine & other:
            return f"third person against {', '.join(sorted(other))}"
    if {"first", "second"} <= a ^ b and not _generic(pair):
        return "first person against second"
    if pair.a.genders and pair.b.genders and not pair.a.genders & pair.b.genders:
        return f"{', '.join(sorted(pair.a.genders))} against {', '.join(sorted(pair.b.genders))}"
    if {pair.a.tense, pair.b.tense} in ({"past", "present"}, {"past", "future"}) and not _passive(pair):
        return f"{pair.a.tense} against {pair.b.tense}"
    return None


def _generic(pair: Comparison) -> bool:
    return bool(_GENERIC_FRAMES & set(pair.a.frames) and _GENERIC_FRAMES & set(pair.b.frames))


def _passive(pair: Comparison) -> bool:
    """Was painted by X says nothing of when, beside who is the painter."""
    return any(agent in text.directions for text in (pair.a, pair.b) for agent in ("by", "por", "par", "von"))
