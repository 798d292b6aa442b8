"""Who does what to whom, and from where to where: the same words with their roles exchanged."""

from __future__ import annotations

from itertools import combinations

from cache.guards.comparison import Comparison
from cache.language.alignment import ECHO, SAME, Match
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
_CHANGES = ("convert", "convier", "transform", "translat", "traduz", "traduc", "tradui", "ubersetz", "umwand",
            "wandel", "chang", "migrat", "export", "import", "turn")  # fmt: skip
"""Verbs after which in, em, en say into what."""
_GOALS = frozenset({"to", "in", "em", "en", "para", "a", "nach", "zu", "vers"})
_UNORDERED = frozenset({"versus", "between", "entre", "zwischen"})


def roles(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    matches = [match for match in pair.alignment.matches if match.kind != ECHO]
    stranded = _stranded(pair)
    if stranded is not None:
        return stranded
    for match in matches:
        if (match.a.role == "as") != (match.b.role == "as"):
            return f"as {match.a.norm} on one side"
        if _turned(
            match.a.role,
            match.b.role,
            _is_place(match.a, words),
        ):
            return f"{match.a.role} {match.a.norm} against {match.b.role} {match.b.norm}"
    unordered = _unordered(pair)
    if pair.a.sequence != pair.b.sequence and not unordered and _reordered(pair.a.sequence, pair.b.sequence):
        return "numbers change places"
    changing = all(any(unit.key.startswith(_CHANGES) for unit in text.units) for text in (pair.a, pair.b))
    for first, second in combinations(matches, 2):
        if _exchanged(first, second, words, unordered, changing) or (not unordered and _around(first, second, matches)):
            return f"{first.a.norm} and {second.a.norm} change places"
    return None


_BESIDE_A_VERB = frozenset({"", "to", "para", "a", "an", "for"})
"""What is owed to Ben, what is owed Ben; for a tenant to sue."""


def _around(first: Match, second: Match, matches: list[Match]) -> bool:
    """Two nouns without a preposition that change sides of a third word: who refuses whom."""
    sides = (first.a, first.b, second.a, second.b)
    if any(unit.role not in _BESIDE_A_VERB or unit.linked or unit.light for unit in sides):
        return False
    if {first.kind, second.kind} != {SAME}:
        return False
    if (first.a.place < second.a.place) == (first.b.place < second.b.place):
        return False
    return any(
        min(first.a.place, second.a.place) < third.a.place < max(first.a.place, second.a.place)
        and min(first.b.place, second.b.place) < third.b.place < max(first.b.place, second.b.place)
        and {third.a.role, third.b.role} <= {"", "to", "zu"}
        for third in matches
        if third is not first and third is not second
    )


def _stranded(pair: Comparison) -> str | None:
    """What can I swap X for, what can I swap for X; the same with instead of."""
    for mine, other in ((pair.a, pair.b), (pair.b, pair.a)):
        if mine.ending == other.ending:
            continue
        if mine.ending == "of" and mine.plain[-2:] == ("instead", "of"):
            return "instead of what"
        if mine.ending and "where" not in mine.frames:
            theirs = {unit.norm for unit in other.units if unit.role == mine.ending}
            if any(unit.norm in theirs and unit.role != mine.ending for unit in mine.units):
                return f"{mine.ending} what"
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


def _as_written(unit: Unit) -> str:
    return unit.role


def _into(unit: Unit) -> str:
    """After a verb of change to, into, in, em, para say the same."""
    return "to" if unit.role in _GOALS else unit.role


def _exchanged(first: Match, second: Match, words: Lexicon, unordered: bool, changing: bool) -> bool:
    if not unordered and _way_back(first, second):
        return True
    if unordered or (first.a.linked and second.a.linked) or (first.b.linked and second.b.linked):
        return False
    swapped = (first.a.place < second.a.place) != (first.b.place < second.b.place)
    role = _into if changing else _as_written
    crossed = role(first.a) == role(second.b) and role(second.a) == role(first.b)
    alike = _alike(first, second, words)
    if swapped and crossed:
        free = _FREE - _INSIDE if changing else _FREE
        marked = bool(first.a.role or second.a.role) and not {first.a.role, second.a.role} <= free | {""}
        return marked or alike
    if not swapped and crossed and first.a.role != second.a.role:
        return not {first.a.role, second.a.role} <= _FREE | {""}
    if not swapped and alike:
        # Active on one side and passive on the other, with the names in the same order.
        later_a, later_b = max(first.a, second.a, key=_place), max(first.b, second.b, key=_place)
        return (later_a.role in _AGENT) != (later_b.role in _AGENT) and not (later_a.role and later_b.role)
    return False


_SOURCES = _OPPOSITE[0][0] | _WEAK_SOURCES
_DESTINATIONS = _GOALS | {"into", "onto", "toward", "towards", "ao", "aos", "ate", "hacia", "hasta", "bis", "an", "auf"}


def _way_back(first: Match, second: Match) -> bool:
    """From the airport to the city, from the city to the airport, with whatever prepositions."""
    return any(
        {out.a.role, back.b.role} <= _SOURCES and {back.a.role, out.b.role} <= _DESTINATIONS
        for out, back in ((first, second), (second, first))
    )


def _place(unit: Unit) -> int:
    return unit.place


def _alike(first: Match, second: Match, words: Lexicon) -> bool:
    """Two of one kind, so that exchanging them still makes sense: two names, two members of one class."""
    if (first.a.entity and second.a.entity) or (first.a.rare and second.a.rare):
        return True
    return words.contrasted(first.a.key, second.a.key) or words.opposed(first.a.key, second.a.key)
