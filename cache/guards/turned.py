"""Measures and comparisons turned round: ounces in a pint and pints in an ounce; more in this than in that."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.quantities import UNITS

_HOW_MANY = frozenset(
    {"many", "much", "quantos", "quantas", "quanto", "quanta", "cuantos", "cuantas", "cuanto", "cuanta", "combien",
     "wieviele", "wieviel", "viele", "viel"}
)  # fmt: skip
_INSIDE = frozenset({"in", "em", "en", "dans", "per", "por", "par", "pro", "im", "make", "of", "de", "a"})
_THAN = {"en": frozenset({"than"}), "de": frozenset({"als"}), "pt": frozenset({"que"}), "es": frozenset({"que"}),
         "fr": frozenset({"que", "qu"})}  # fmt: skip
_MORE_TEXT = (
    "mais menos maior menor melhor pior mas mayor mejor peor plus moins meilleur meilleure pire mieux mehr weniger "
    "besser grosser kleiner schneller langsamer starker schwacher schlechter alter junger hoher teurer billiger "
    "schwerer leichter langer kurzer gesunder"
)
_MORE = frozenset(_MORE_TEXT.split())


def turned(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    return _measures(pair) or _compared(pair, words.language)


def _measures(pair: Comparison) -> str | None:
    """The first of A is a later one of B, and the first of B a later one of A."""
    a, b = _counted(pair.a), _counted(pair.b)
    if a is None or b is None:
        return None
    kinds_a, kinds_b = _kinds(pair.a), _kinds(pair.b)
    if kinds_a and kinds_b and kinds_a[0] in kinds_b[1:] and kinds_b[0] in kinds_a[1:]:
        return f"{kinds_a[0]} and {kinds_b[0]} change places"
    partner_of_a = next((match.b for match in pair.alignment.matches if match.a.place == a), None)
    partner_of_b = next((match.a for match in pair.alignment.matches if match.b.place == b), None)
    if partner_of_a is None or partner_of_b is None or partner_of_a.place == b:
        return None
    if partner_of_a.place < b or partner_of_b.place < a:
        return None
    return f"{partner_of_b.norm} and {partner_of_a.norm} change places"


def _counted(text: Analysis) -> int | None:
    """Place of the unit that is counted: after how many, or a measure that begins the text."""
    if not text.units:
        return None
    if not _HOW_MANY.isdisjoint(text.plain[:3]):
        return text.units[0].place
    measures = [unit for unit in text.units if unit.norm in UNITS]
    if len(measures) > 1 and text.units[0] is measures[0] and measures[1].role in _INSIDE:
        return measures[0].place
    return None


def _kinds(text: Analysis) -> list[str]:
    """Measures in order, whatever their form."""
    return [UNITS[unit.norm] for unit in text.units if unit.norm in UNITS]


def _compared(pair: Comparison, language: str) -> str | None:
    """More iron in spinach than in beef: what stands after than against what stands before it."""
    a, b = _than(pair.a, language), _than(pair.b, language)
    if a is None or b is None:
        return None
    matches = pair.alignment.matches
    out = next((m for m in matches if m.a.place >= a and m.b.place < b), None)
    back = next((m for m in matches if m.a.place < a and m.b.place >= b), None)
    if out is None or back is None:
        return None
    return f"{out.a.norm} and {back.a.norm} change places"


def _than(text: Analysis, language: str) -> int | None:
    """The place of the first unit after than."""
    if language != "en" and _MORE.isdisjoint(text.plain):
        return None
    found = [at for at, norm in enumerate(text.plain) if at and norm in _THAN[language]]
    if language != "en":
        more = [at for at, norm in enumerate(text.plain) if norm in _MORE]
        found = [at for at in found if at > more[0]]
    if not found:
        return None
    before = text.plain[: found[-1]]
    later = [unit.place for unit in text.units if unit.norm.partition("_")[0] not in before]
    return min(later) if later else None
