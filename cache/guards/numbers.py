"""Numbers, dates, times, units, versions and identifiers: equal as multisets, however they are spelt."""

from __future__ import annotations

from collections import Counter

from cache.guards.comparison import Comparison


def numbers(pair: Comparison) -> str | None:
    if pair.words is None:
        return None
    a, b = (
        _with_identifiers(pair.a.quantities, pair.a.identifiers),
        _with_identifiers(pair.b.quantities, pair.b.identifiers),
    )
    if pair.a.expression != pair.b.expression:
        return "expressions differ"
    if a == b:
        return _bounds(pair)
    only_a, only_b = sorted((a - b).elements()), sorted((b - a).elements())
    return f"{', '.join(only_a) or 'nothing'} against {', '.join(only_b) or 'nothing'}"


def _with_identifiers(quantities: Counter[str], identifiers: Counter[str]) -> Counter[str]:
    return quantities + identifiers


_OPPOSITE = {"<": ">", ">": "<", "from": "to", "to": "from"}


def _bounds(pair: Comparison) -> str | None:
    """Under 25 against over 25; to zero against from zero."""
    for bound in pair.a.bounds.keys() - pair.b.bounds.keys():
        side, _, number = bound.partition(" ")
        if f"{_OPPOSITE[side]} {number}" in pair.b.bounds:
            return f"{side} against {_OPPOSITE[side]} {number}"
    return None
