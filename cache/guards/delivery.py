"""How the answer is to be delivered: its language, its format, its length."""

from __future__ import annotations

from cache.guards.comparison import Comparison


def delivery(pair: Comparison) -> str | None:
    if pair.words is None:
        return None
    for name, a, b in (
        ("language", set(pair.a.languages), set(pair.b.languages)),
        ("format", set(pair.a.formats), set(pair.b.formats)),
        ("length", set(pair.a.lengths), set(pair.b.lengths)),
    ):
        if a != b:
            return f"{name}: {', '.join(sorted(a)) or 'none'} against {', '.join(sorted(b)) or 'none'}"
    return None
