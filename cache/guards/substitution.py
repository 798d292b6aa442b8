"""One entity or word in the place of another; typos, inflections and synonyms were aligned before."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.affixes import other_compound, other_substance
from cache.language.analysis import Unit
from cache.language.lexicon import Lexicon
from cache.language.typos import distance, slip

_SPELLINGS_TEXT = "our/or re/er ise/ize yse/yze ence/ense ogue/og ll/l ey/ay yre/ire mme/m is/iz c/s ae/e oe/e"
_SPELLINGS = tuple((left, right) for pair in _SPELLINGS_TEXT.split() for left, right in [pair.split("/")])
"""Of English words on two shores."""
_SHORTEST = 4


def _letter_apart(unit: Unit, other: Unit, words: Lexicon) -> bool:
    """Two words that exist, one letter from each other, are two things: ants and aunts, Leder and Leber."""
    p, q = unit.norm, other.norm
    if min(len(p), len(q)) < _SHORTEST or unit.light or other.light or distance(p, q, 1) > 1:
        return False
    if words.synonyms(unit.key, other.key) or p[:-1] in (q, q[:-1]) or q[:-1] == p or slip(p, q, words, False):
        return False
    return not _spelt_elsewhere(p, q) and not _spelt_elsewhere(q, p)


def _spelt_elsewhere(british: str, us: str) -> bool:
    return any(
        left in british and right in us and british.replace(left, "*", 1) == us.replace(right, "*", 1)
        for left, right in _SPELLINGS
    )


def substitution(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    for unit in pair.alignment.left_a:
        for other in pair.alignment.left_b:
            if words.contrasted(unit.key, other.key) or _another_thing(unit, other, words):
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


def _another_thing(unit: Unit, other: Unit, words: Lexicon) -> bool:
    if other_substance(unit.norm, other.norm) or _letter_apart(unit, other, words):
        return True
    return words.language == "de" and other_compound(unit.norm, other.norm)


def _rare(units: tuple[Unit, ...]) -> list[str]:
    return [unit.norm for unit in units if unit.rare]


def _one_slot(pair: Comparison) -> str | None:
    """Everything the same but for one word in the same place, in a language whose rare words are not known.

    English leaves this to the score, which knows how common a word is. The first word is often the verb, and verbs
    have more synonyms than any list: it is left to the score, too.
    """
    if pair.a.language == "en":
        return None
    aligned = pair.alignment
    for left, others in ((pair.left_a, aligned.left_b), (pair.left_b, aligned.left_a)):
        if len(left) == 1 and _half_of(left[0], others):
            return f"{left[0].norm} against {' '.join(unit.norm for unit in others)}"
    if len(pair.left_a) != 1 or len(pair.left_b) != 1:
        return None
    a, b = pair.left_a[0], pair.left_b[0]
    if a.role != b.role or a.place == pair.a.units[0].place or b.place == pair.b.units[0].place:
        return None
    return f"{a.norm} against {b.norm}"


def _half_of(phrase: Unit, others: tuple[Unit, ...]) -> bool:
    """One word of a phrase that means one thing, and another word: how many people live, how many people work."""
    parts = phrase.norm.split("_")
    said = [any(part.startswith(unit.key) for part in parts) for unit in others]
    return len(parts) > 1 and any(said) and not all(said)
