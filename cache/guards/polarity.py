"""Negation parity, exclusions, and opposites."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.affixes import opposed_by_prefix
from cache.language.analysis import Unit
from cache.language.lexicon import Lexicon

_NEGATIVE_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "de", "non", "anti", "des", "mis", "mal")


def polarity(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    if (pair.a.negations - pair.b.negations) % 2 and not _prevented(pair, words):
        return "negated on one side"
    if pair.a.exclusions != pair.b.exclusions and (set(pair.a.exclusions) ^ set(pair.b.exclusions)) - _aligned(pair):
        return "exclusion on one side"
    for unit in pair.alignment.left_a:
        for other in pair.alignment.left_b:
            if opposed(unit, other, words):
                return f"{unit.norm} against {other.norm}"
    for left, side in ((pair.left_a, "a"), (pair.left_b, "b")):
        for unit in left:
            for match in pair.alignment.matches:
                own = getattr(match, side)
                if opposed(unit, own, words):
                    return f"{unit.norm} what is {own.norm} on one side"
    return None


def _prevented(pair: Comparison, words: Lexicon) -> bool:
    """One side says not, the other a verb that means it."""
    plain = pair.alignment.left_a if pair.b.negations > pair.a.negations else pair.alignment.left_b
    return any(unit.key in words.preventive for unit in plain)


def _aligned(pair: Comparison) -> set[str]:
    return {m.a.norm for m in pair.alignment.matches} | {m.b.norm for m in pair.alignment.matches}


def opposed(a: Unit, b: Unit, words: Lexicon) -> bool:
    """Listed opposites, opposites of a synonym on both sides, or one word with a negative prefix or an opposite one."""
    if words.opposed(a.key, b.key) or words.opposed(a.norm, b.norm) or words.opposed_by_synonym(a.key, b.key):
        return True
    if opposed_by_prefix(a.norm, b.norm, words.language):
        return True
    short, long = sorted((a.norm, b.norm), key=len)
    if len(short) < 4:
        return False
    for prefix in _NEGATIVE_PREFIXES if long.startswith(_NEGATIVE_PREFIXES) else ():
        if long == prefix + short or (long.startswith(prefix) and words.stem(long[len(prefix) :]) == words.stem(short)):
            return True
    return (
        a.norm.endswith("less") != b.norm.endswith("less")
        and a.norm.removesuffix("less")[:4] == b.norm.removesuffix("ful")[:4]
    )
