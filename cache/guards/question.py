"""What is asked for: why is not when, and how much is not how."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.frames import EXPRESSED, says

_WEAK = frozenset({"define", "howto", "how", "yesno", "remedy"})
_COMPATIBLE = (
    frozenset({"howmuch", "howmany"}),
    frozenset({"howlong", "when"}),
    frozenset({"howoften", "howmany"}),
    frozenset({"howto", "where"}),
)


def question(pair: Comparison) -> str | None:
    if pair.words is None:
        return None
    return _conflict(pair.a, pair.b) or _conflict(pair.b, pair.a) or _kind(pair)


def _kind(pair: Comparison) -> str | None:
    """What it is against how to do something with it; may I against what now."""
    for mine, other, left in ((pair.a, pair.b, pair.left_a), (pair.b, pair.a, pair.left_b)):
        a, b = set(mine.frames), set(other.frames)
        if a == {"define"} and b == {"howto"} and not left and len(other.units) > len(mine.units):
            return "what it is against how to"
        if "remedy" in a and not b & {"remedy", "howto", "how"} and (b or other.text.rstrip().endswith("?")):
            return "what to do against whether"
    return None


_TIMES = ("second", "minut", "hour", "day", "week", "month", "year", "hora", "dia", "seman", "mes", "ano", "año",
          "heur", "jour", "mois", "annee", "stund", "tag", "woch", "monat", "jahr")  # fmt: skip


def _counts_time(text: Analysis) -> bool:
    """How many minutes is how long."""
    return "howmany" in text.frames and any(norm.startswith(_TIMES) and len(norm) <= 9 for norm in text.plain[:8])


def _conflict(mine: Analysis, other: Analysis) -> str | None:
    a, b = set(mine.frames), set(other.frames)
    if a & b:
        return None
    for frame in sorted(a - _WEAK):
        if any({frame, name} in _COMPATIBLE for name in b):
            continue
        if {frame} | (b - _WEAK) == {"howlong", "howmany"} and _counts_time(mine) | _counts_time(other):
            continue
        if b - _WEAK:
            return f"{frame} against {min(b - _WEAK)}"
        if frame in ("who", "whom"):
            if b & {"howto", "how", "yesno"}:
                return f"{frame} against {min(b)}"
            continue
        signs = EXPRESSED[frame]
        spoken = {unit.key for unit in other.units} | {unit.norm for unit in other.units} | other.functions
        if not any(says(word, signs) for word in spoken):
            return f"{frame} against {min(b) if b else 'none'}"
    return None
