"""Symbols beside the words: a sign, an operator, a currency, an emoji; the same on both sides."""

from __future__ import annotations

from collections import Counter

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.marks import JOINED, MINUS

_SPOKEN_TEXT = {
    MINUS: "minus negative menos negativo moins negatif negativ under below",
    JOINED: "to until till through and minus less between a ate e menos hasta y moins et entre bis und zwischen",
    "+": "plus and with mais e com mas y con et avec und mit add over",
    "*": "times multiplied by star asterisk vezes por asterisco veces multiplicado fois multiplie mal stern",
    "\u00d7": "times multiplied by vezes por veces multiplicado fois multiplie mal",
    "\u00f7": "divided over dividido entre divise geteilt durch",
    "n/n": "divided over of dividido entre sobre divise sur geteilt durch by",
    "n:n": "to a zu",
    "=": "equals equal is igual egal gleich",
    "%": "percent percentage porcento prozent pourcent porciento cento ciento cent",
    "&": "and e y et und ampersand",
    "@": "at arroba arobase",
    "#": "hash number hashtag numero nummer sharp",
    "~": "about around approximately cerca aproximadamente alrededor environ etwa ungefahr tilde roughly",
    "\u00b0": "degree degrees grau graus grado grados degre degres grad",
    "\u266d": "flat bemol",
    "\u266f": "sharp sostenido sustenido diese",
    "\u2192": "to arrow para a nach zu vers",
    "/": "or slash with without per por ou o oder barra par pro",
}
_SPOKEN = {symbol: frozenset(text.split()) for symbol, text in _SPOKEN_TEXT.items()}
"""How a symbol is written out where the other side has none in its place."""


def marks(pair: Comparison) -> str | None:
    if pair.a.symbols == pair.b.symbols:
        return None
    a, b = Counter(pair.a.symbols), Counter(pair.b.symbols)
    only_a, only_b = a - b, b - a
    if not only_a and not only_b:
        return "symbols change places" if pair.identical else None
    if pair.words is not None and not (only_a and only_b):
        said, other = (only_a, pair.b) if only_a else (only_b, pair.a)
        if all(_spoken(symbol, other) for symbol in said):
            return None
    return f"{_list(only_a)} against {_list(only_b)}"


def _spoken(symbol: str, text: Analysis) -> bool:
    return not _SPOKEN.get(symbol, frozenset()).isdisjoint(text.plain)


def _list(found: Counter[str]) -> str:
    return " ".join(sorted(found.elements())) or "nothing"
