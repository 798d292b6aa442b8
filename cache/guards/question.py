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
    return (
        _conflict(pair.a, pair.b)
        or _conflict(pair.b, pair.a)
        or _kind(pair)
        or _compared(pair)
        or _reason(pair)
        or _whether(pair)
        or _generally(pair)
        or _of_whom(pair)
    )


_COMMON_TEXT = "common similarities comum semelhancas comun semejanzas commun ressemblances gemeinsam"
_COMMON = frozenset(_COMMON_TEXT.split())
_DIFFERENCE = ("differ", "diferenc", "diferen", "unterschied", "unterscheid", "distin")
_PREFERENCE_TEXT = (
    "better worse cheaper faster stronger healthier safer prefer choose pick recommend melhor pior escolher "
    "mejor peor elegir meilleur meilleure mieux pire choisir besser schlechter wahlen "
)
_PREFERENCE = frozenset(_PREFERENCE_TEXT.split())


def _compared(pair: Comparison) -> str | None:
    """How two things differ against which of them to take."""
    for mine, other in ((pair.a, pair.b), (pair.b, pair.a)):
        if any(norm.startswith(_DIFFERENCE) for norm in mine.plain) and not _PREFERENCE & set(mine.plain):
            if _PREFERENCE & set(other.plain) and not any(norm.startswith(_DIFFERENCE) for norm in other.plain):
                return "how they differ against which to take"
            if _COMMON & set(other.plain) and not any(norm.startswith(_DIFFERENCE) for norm in other.plain):
                return "how they differ against what they share"
    return None


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


def _happens(text: Analysis) -> bool:
    """Where does it happen is no place to go to."""
    return bool({"does", "did", "was", "were"} & set(text.plain[:3]))


_WHY = frozenset({"why", "warum", "weshalb", "wieso", "pourquoi"})


def _reason(pair: Comparison) -> str | None:
    """Why inside a sentence: tell them why I am ill, tell them that I am ill."""
    for mine, other in ((pair.a, pair.b), (pair.b, pair.a)):
        if not _WHY & set(mine.plain) or _WHY & set(other.plain) or "why" in {*mine.frames, *other.frames}:
            continue
        if not any(says(word, EXPRESSED["why"]) for word in other.plain):
            return "why on one side"
    return None


_AUXILIARIES_TEXT = "is are was were does do did has have will can"
_AUXILIARIES = frozenset(_AUXILIARIES_TEXT.split())


def _asks_whether(text: Analysis) -> bool:
    """Answered with yes or no; "can you" and "could I" are manners and were dropped."""
    if text.frames == ("yesno",):
        return True
    return text.language == "en" and not text.frames and bool(text.plain) and text.plain[0] in _AUXILIARIES


def _whether(pair: Comparison) -> str | None:
    """Can I do it against how do I do it; what is it against can it be changed."""
    for mine, other, left in ((pair.a, pair.b, pair.left_a), (pair.b, pair.a, pair.left_b)):
        if not _asks_whether(mine):
            continue
        if other.frames == ("howto",) and not (pair.left_a or pair.left_b):
            return "whether against how"
        if other.frames == ("define",) and left:
            return "whether against what"
    return None


def _of_whom(pair: Comparison) -> str | None:
    """A student of whom against whose student; directed by whom is who directed."""
    for mine, other in ((pair.a, pair.b), (pair.b, pair.a)):
        if "whom" not in mine.plain[1:] or "whom" in other.plain or "who" not in other.frames:
            continue
        if mine.plain[mine.plain.index("whom", 1) - 1] != "by":
            return "whom against who"
    return None


def _generally(pair: Comparison) -> str | None:
    """How much are they against what are they, where the word for the price is said by both."""
    for mine, other in ((pair.a, pair.b), (pair.b, pair.a)):
        if "howmuch" not in mine.frames or other.frames != ("define",) or pair.left_a or pair.left_b:
            continue
        if other.plain[:2] == ("what", "are") or {"explain", "mean", "define"} & set(other.plain):
            return "how much against what"
    return None


def _conflict(mine: Analysis, other: Analysis) -> str | None:
    a, b = set(mine.frames), set(other.frames)
    if a & b:
        return None
    for frame in sorted(a - _WEAK):
        if any({frame, name} in _COMPATIBLE for name in b):
            if {frame, *b} >= {"howto", "where"} and _happens(mine if frame == "where" else other):
                return "where it happens against how to"
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
