"""What is asked for: why is not when, and how much is not how."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.frames import EXPRESSED

_WEAK = frozenset({"define", "howto", "how", "yesno"})
_COMPATIBLE = (
    frozenset({"howmuch", "howmany"}),
    frozenset({"howlong", "when"}),
    frozenset({"howoften", "howmany"}),
    frozenset({"howto", "where"}),
)


def question(pair: Comparison) -> str | None:
    if pair.words is None:
        return None
    return _conflict(pair.a, pair.b) or _conflict(pair.b, pair.a)


def _conflict(mine: Analysis, other: Analysis) -> str | None:
    a, b = set(mine.frames), set(other.frames)
    if a & b:
        return None
    for frame in sorted(a - _WEAK):
        if any({frame, name} in _COMPATIBLE for name in b):
            continue
        if b - _WEAK:
            return f"{frame} against {min(b - _WEAK)}"
        if frame in ("who", "whom"):
            if b & {"howto", "how", "yesno"}:
                return f"{frame} against {min(b)}"
            continue
        signs = EXPRESSED[frame]
        spoken = {unit.key for unit in other.units} | {unit.norm for unit in other.units} | other.functions
        if not any(word.startswith(signs) for word in spoken):
            return f"{frame} against {min(b) if b else 'none'}"
    return None
