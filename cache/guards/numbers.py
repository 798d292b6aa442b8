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
        return None
    only_a, only_b = sorted((a - b).elements()), sorted((b - a).elements())
    return f"{', '.join(only_a) or 'nothing'} against {', '.join(only_b) or 'nothing'}"


def _with_identifiers(quantities: Counter[str], identifiers: Counter[str]) -> Counter[str]:
    return quantities + identifiers
