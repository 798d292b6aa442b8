"""For or against, on or off: particles and prepositions that turn round what the same verb or noun says."""

from __future__ import annotations

from itertools import product

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.lexicon import Lexicon

_FOR = frozenset({"for", "favor", "favour", "favore", "faveur", "pro", "pour", "fur", "dafur", "por", "para"})
_AGAINST = frozenset({"against", "contra", "contre", "gegen", "dagegen", "anti"})
_REMEDIES_TEXT = (
    "remed medic cur treat help pill cream vaccin vacin vacun impf mittel hilf hilft insur protec protej schutz "
    "drug spray tablet good gut bom bon buen best better ayud ajud aid soign soin traite trait salb creme "
    "crema pomad sirop syrup safe secur versicher segur assur take nehm tom work wirk serv"
)
_REMEDIES = tuple(_REMEDIES_TEXT.split())
"""A medicine for a headache is one against it."""

_ON_OR_OFF = (("on", "off"), ("up", "down"), ("upstairs", "downstairs"), ("forward", "back"), ("forward", "backward"),
              ("forwards", "backwards"), ("indoors", "outdoors"), ("upwards", "downwards"))  # fmt: skip
_IN_OR_OUT = (("in", "out"), ("on", "off"), ("up", "down"), ("over", "under"), ("into", "out"), ("onto", "off"))
_ALIKE_BEFORE = frozenset({"fill", "burn", "close", "slow", "phase", "of", "the", "a"})
"""Fill in a form, fill out a form."""

_PARTICLES_TEXT = (
    "an aus auf zu ein ab vor nach hin her los weg zuruck fort rein raus hoch runter mit bei um unter uber"
)
_PARTICLES = frozenset(_PARTICLES_TEXT.split())
_SAME_PARTICLE = (frozenset({"an", "ein"}), frozenset({"ab", "aus"}), frozenset({"weg", "fort"}))
_OPPOSITE_PREFIXES = frozenset(
    {("an", "aus"), ("an", "ab"), ("ein", "aus"), ("auf", "zu"), ("ab", "zu"), ("auf", "ab"), ("vor", "nach"),
     ("rein", "raus"), ("hin", "her"), ("hoch", "runter"), ("ein", "ab"), ("aus", "zu")}
)  # fmt: skip


def particles(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    for mine, other in ((pair.a, pair.b), (pair.b, pair.a)):
        found = _stance(mine, other)
        if found is None and words.language == "en":
            found = _switched(mine, other, words)
        if found is None and words.language == "de":
            found = _separated(mine, other, words)
        if found is not None:
            return found
    return None


def _stance(mine: Analysis, other: Analysis) -> str | None:
    pro, con = _FOR & set(mine.plain) - set(other.plain), _AGAINST & set(other.plain) - set(mine.plain)
    if not pro or not con or not _AGAINST.isdisjoint(mine.plain):
        return None
    if any(norm.startswith(_REMEDIES) for norm in (*mine.plain, *other.plain)):
        return None
    return f"{min(pro)} against {min(con)}"


def _switched(mine: Analysis, other: Analysis, words: Lexicon) -> str | None:
    a, b = set(mine.plain), set(other.plain)
    for first, second in _ON_OR_OFF:
        if first in a and second not in a and second in b and first not in b and a & b - words.stopwords:
            return f"{first} against {second}"
    for first, second in _IN_OR_OUT:
        if first not in a or second not in b or second in a:
            continue
        before = _before(mine, first, words) & _before(other, second, words)
        if before - _ALIKE_BEFORE:
            return f"{first} against {second} after {min(before)}"
    return None


def _before(text: Analysis, particle: str, words: Lexicon) -> set[str]:
    return {
        words.stem(text.plain[at - 1]) for at in range(1, len(text.plain)) if text.plain[at] == particle
    } - words.stopwords


def _final(text: Analysis) -> set[str]:
    """Particles at the end of a clause."""
    found: set[str] = set()
    cut = text.text.casefold().replace("?", ".").replace("!", ".").replace(",", ".").replace(";", ".")
    for clause in cut.split("."):
        last = clause.split()[-1:]
        found |= {word.replace("ü", "u") for word in last} & _PARTICLES
    return found


def _separated(mine: Analysis, other: Analysis, words: Lexicon) -> str | None:
    """Wie schalte ich das Licht an, wie schalte ich es aus, wie kann ich es ausschalten."""
    final = _final(mine)
    if not final:
        return None
    theirs = _final(other)
    verbs = {words.stem(norm) for norm in mine.plain} & {words.stem(norm) for norm in other.plain} - words.stopwords
    if verbs:
        for left, right in product(final - theirs, theirs - final):
            if not any({left, right} <= same for same in _SAME_PARTICLE):
                return f"{left} against {right}"
    stems = {words.stem(norm) for norm in mine.plain if len(norm) > 3}
    for particle, norm in product(final, other.plain):
        for first, second in _OPPOSITE_PREFIXES:
            turned = second if particle == first else first if particle == second else None
            if turned is None or not norm.startswith(turned):
                continue
            rest = norm.removeprefix(turned).removeprefix("zu")
            if len(rest) > 3 and words.stem(rest) in stems:
                return f"{particle} against {turned}"
    return None
