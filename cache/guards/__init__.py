"""Guards: each looks at two texts and refuses, saying why, where one answer cannot fit both.

A guard is a function of a ``Comparison`` that returns None or a short reason. Order matters only for which name is
reported: cheap and certain ones come first.
"""

from __future__ import annotations

from collections.abc import Callable

from cache.guards.accents import accents
from cache.guards.asked import asked
from cache.guards.comparison import Comparison, compare
from cache.guards.delivery import delivery
from cache.guards.language import language
from cache.guards.marks import marks
from cache.guards.numbers import numbers
from cache.guards.operands import operands
from cache.guards.particles import particles
from cache.guards.persons import persons
from cache.guards.polarity import polarity
from cache.guards.question import question
from cache.guards.roles import roles
from cache.guards.scope import scope
from cache.guards.substitution import substitution
from cache.guards.turned import turned
from cache.guards.undergone import undergone
from cache.guards.verbatim import verbatim

Guard = Callable[[Comparison], str | None]

GUARDS: dict[str, Guard] = {
    "language": language,
    "marks": marks,
    "numbers": numbers,
    "accents": accents,
    "verbatim": verbatim,
    "delivery": delivery,
    "polarity": polarity,
    "substitution": substitution,
    "roles": roles,
    "asked": asked,
    "turned": turned,
    "particles": particles,
    "undergone": undergone,
    "operands": operands,
    "scope": scope,
    "persons": persons,
    "question": question,
}
"""Name, as it appears in metrics and headers -> guard."""

GUARD_VERSION = "7"
"""Grows with every change of judgement: part of the semantic index's name."""

__all__ = ["GUARDS", "GUARD_VERSION", "Comparison", "Guard", "compare", "refusal"]


def refusal(pair: Comparison) -> tuple[str, str] | None:
    """(guard, reason) of the first guard that refuses."""
    for name, guard in GUARDS.items():
        reason = guard(pair)
        if reason is not None:
            return name, reason
    return None
