"""The same language on both sides; in one that is not known only the same words may be served."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.detect import UNKNOWN


def language(pair: Comparison) -> str | None:
    if not pair.a.plain or not pair.b.plain:
        return None if pair.a.text == pair.b.text and pair.a.text else "nothing to compare"
    if pair.identical:
        return None
    if pair.a.language == pair.b.language and pair.words is not None:
        return None
    if UNKNOWN in (pair.a.language, pair.b.language):
        return "language not known and words differ"
    return f"{pair.a.language} against {pair.b.language}"
