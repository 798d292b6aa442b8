"""One entity or word in the place of another; typos, inflections and synonyms were aligned before."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.affixes import other_compound, other_substance
from cache.language.analysis import Unit


def substitution(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    for unit in pair.alignment.left_a:
        for other in pair.alignment.left_b:
            if words.contrasted(unit.key, other.key) or _another_thing(unit, other, words.language):
                return f"{unit.norm} against {other.norm}"
    for mine, others in ((pair.left_a, pair.left_b), (pair.left_b, pair.left_a)):
        named = next((unit.norm for unit in mine if unit.entity), None)
        if named is not None and others:
            return f"{named} on one side"
    slot = _one_slot(pair)
    if slot is not None:
        return slot
    rare_a, rare_b = _rare(pair.left_a), _rare(pair.left_b)
    if rare_a and rare_b:
        return f"{rare_a[0]} against {rare_b[0]}"
    return None


def _another_thing(unit: Unit, other: Unit, language: str) -> bool:
    return other_substance(unit.norm, other.norm) or (language == "de" and other_compound(unit.norm, other.norm))


def _rare(units: tuple[Unit, ...]) -> list[str]:
    return [unit.norm for unit in units if unit.rare]


def _one_slot(pair: Comparison) -> str | None:
    """Everything the same but for one word in the same place, in a language whose rare words are not known.

    English leaves this to the score, which knows how common a word is. The first word is often the verb, and verbs
    have more synonyms than any list: it is left to the score, too.
    """
    if pair.a.language == "en" or len(pair.left_a) != 1 or len(pair.left_b) != 1:
        return None
    a, b = pair.left_a[0], pair.left_b[0]
    if a.role != b.role or a.place == pair.a.units[0].place or b.place == pair.b.units[0].place:
        return None
    return f"{a.norm} against {b.norm}"
