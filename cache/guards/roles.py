"""Who does what to whom, and from where to where: the same words with their roles exchanged."""

from __future__ import annotations

from itertools import combinations

from cache.guards.comparison import Comparison
from cache.language.alignment import ECHO, Match
from cache.language.analysis import Unit
from cache.language.lexicon import Lexicon

_AGENT = frozenset({"by", "por", "pelo", "pela", "par", "von"})
_FREE = frozenset({"with", "com", "con", "avec", "mit", "and", "versus", "between", "entre", "zwischen",
                   "sobre", "in", "em", "en",
                   "on", "at", "for", "about", "during", "no", "na", "bei", "fur", "pour", "dans"})  # fmt: skip
"""Words whose two sides may change places."""
_OPPOSITE = (
    (
        frozenset({"from", "off", "out", "desde", "aus", "depuis", "ab"}),
        frozenset(
            {
                "to",
                "into",
                "onto",
                "toward",
                "towards",
                "para",
                "hacia",
                "hasta",
                "nach",
                "zu",
                "zum",
                "zur",
                "vers",
                "in",
                "a",
                "em",
                "en",
            }
        ),
    ),
    (
        frozenset({"before", "antes", "avant", "vor"}),
        frozenset({"after", "depois", "apos", "despues", "apres", "nach"}),
    ),
    (frozenset({"over", "above", "acima", "uber"}), frozenset({"under", "below", "abaixo", "sob", "unter"})),
    (frozenset({"with"}), frozenset({"without", "against"})),
)
_INSIDE = frozenset({"in", "em", "en"})
"""Ants in the garden are ants from the garden; ships in Canada are not ships from Canada."""
_PLACES = frozenset({"country", "city", "continent"})
_WEAK_SOURCES = frozenset({"de", "do", "da", "dos", "das", "del", "du", "von", "vom"})
"""Of as well as from: only a place or a language makes them a direction."""
_UNORDERED = frozenset({"versus", "between", "entre", "zwischen"})


def roles(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    matches = [match for match in pair.alignment.matches if match.kind != ECHO]
    for match in matches:
        if _turned(
            match.a.role,
            match.b.role,
            _is_place(match.a, words),
        ):
            return f"{match.a.role} {match.a.norm} against {match.b.role} {match.b.norm}"
    unordered = _unordered(pair)
    if pair.a.sequence != pair.b.sequence and not unordered and _reordered(pair.a.sequence, pair.b.sequence):
        return "numbers change places"
    for first, second in combinations(matches, 2):
        if _exchanged(first, second, words, unordered):
            return f"{first.a.norm} and {second.a.norm} change places"
    return None


def _is_place(unit: Unit, words: Lexicon) -> bool:
    """A name, a language, a country or a city: something to come from or go to."""
    return (
        unit.entity
        or unit.norm in words.languages
        or not _PLACES.isdisjoint(words.contrasts.get(unit.key, frozenset()))
    )


def _turned(role: str, other: str, place: bool) -> bool:
    for left, right in _OPPOSITE:
        if {role, other} & _INSIDE and not place:
            continue
        if (role in left and other in right) or (role in right and other in left):
            return True
    goals = _OPPOSITE[0][1] - _INSIDE
    return place and ((role in _WEAK_SOURCES and other in goals) or (other in _WEAK_SOURCES and role in goals))


def _reordered(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """The same numbers in another order; a date may be written day or month first."""
    return sorted(a) == sorted(b) and not any(part.startswith("month:") for part in a)


def _unordered(pair: Comparison) -> bool:
    """Both texts set things beside each other: compare, difference, versus."""
    signs = {"differ", "difference", "compar", "comparison", "versus", "between", "diferenc", "comparar",
             "entre", "zwischen",
             "unterschied", "vergleich", "similar", "choos", "same", "distance", "distanc", "mix",
             "combin"}  # fmt: skip

    def side(keys: set[str]) -> bool:
        return any(key.startswith(sign) for key in keys for sign in signs)

    return all(side({unit.key for unit in text.units} | set(text.directions)) for text in (pair.a, pair.b))


def _exchanged(first: Match, second: Match, words: Lexicon, unordered: bool) -> bool:
    if unordered or (first.a.linked and second.a.linked) or (first.b.linked and second.b.linked):
        return False
    swapped = (first.a.place < second.a.place) != (first.b.place < second.b.place)
    crossed = first.a.role == second.b.role and second.a.role == first.b.role
    alike = _alike(first, second, words)
    if swapped and crossed:
        marked = bool(first.a.role or second.a.role) and not {first.a.role, second.a.role} <= _FREE | {""}
        return marked or alike
    if not swapped and crossed and first.a.role != second.a.role:
        return not {first.a.role, second.a.role} <= _FREE | {""}
    if not swapped and alike:
        # Active on one side and passive on the other, with the names in the same order.
        later_a, later_b = max(first.a, second.a, key=_place), max(first.b, second.b, key=_place)
        return (later_a.role in _AGENT) != (later_b.role in _AGENT) and not (later_a.role and later_b.role)
    return False


def _place(unit: Unit) -> int:
    return unit.place


def _alike(first: Match, second: Match, words: Lexicon) -> bool:
    """Two of one kind, so that exchanging them still makes sense: two names, two members of one class."""
    if (first.a.entity and second.a.entity) or (first.a.rare and second.a.rare):
        return True
    return words.contrasted(first.a.key, second.a.key) or words.opposed(first.a.key, second.a.key)
