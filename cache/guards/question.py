"""What is asked for: why is not when, and how much is not how."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis

_WEAK = frozenset({"define", "howto", "how", "yesno"})
_COMPATIBLE = (
    frozenset({"howmuch", "howmany"}),
    frozenset({"howlong", "when"}),
    frozenset({"howlong", "howmuch"}),
    frozenset({"howoften", "howmany"}),
    frozenset({"howto", "where"}),
)
_SIGNS = {
    "why": "stop prevent wrong matter liegt reason caus why mak motiv razao razon porqu raison grund ursach lead led due",
    "when": "time date day year hour month when deadlin due season period hora data dia ano horari moment prazo epoca fech heur jour anne uhr tag jahr datum",
    "where": "place location locat where address site spot find situat local lugar onde endereco ubicac donde lieu endroit adress ort standort station city pais country",
    "howmuch": "jur interest quot pric cost fee charg rate amount much pay expensiv worth valor prec cust taxa tarif costo coste prix cout preis kost limit allowanc maximum sum total weigh level",
    "howmany": "number amount count many total quantit numer cantidad nombr anzahl population habitant allowanc limit",
    "howlong": "time duration long last length take period tempo duracao duracion dura prazo demor tarda duree temps dauer lang",
    "howoften": "often frequen interval schedul every time vez vec fois oft haufig regular",
}  # fmt: skip
"""Beginnings of words that ask the same without the question word: the price of X is how much X costs."""
_EXPRESSED = {frame: tuple(text.split()) for frame, text in _SIGNS.items()}


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
        signs = _EXPRESSED[frame]
        spoken = {unit.key for unit in other.units} | {unit.norm for unit in other.units} | other.functions
        if not any(word.startswith(signs) for word in spoken):
            return f"{frame} against {min(b) if b else 'none'}"
    return None
