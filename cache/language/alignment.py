"""Which content units of two texts mean the same, and which are left over on either side."""

from __future__ import annotations

from dataclasses import dataclass

from cache.language.affixes import opposed_by_prefix, other_substance
from cache.language.analysis import Analysis, Unit
from cache.language.lexicon import Lexicon, frequent_words
from cache.language.stem import related
from cache.language.typos import slip

SAME, SYNONYM, DERIVED, TYPO, JOINED, ECHO = "same", "synonym", "derived", "typo", "joined", "echo"
"""``echo``: says again what another unit of the same text, already matched, says: recover a forgotten password."""


@dataclass(frozen=True, slots=True)
class Match:
    a: Unit
    b: Unit
    kind: str


@dataclass(frozen=True)
class Alignment:
    matches: tuple[Match, ...]
    left_a: tuple[Unit, ...]
    """Units of A that nothing in B stands for; light ones included."""
    left_b: tuple[Unit, ...]


_MOST_TYPO_PAIRS = 400
"""Beyond it the texts differ too much for a slip of the finger, and comparing every two words would take too long."""


def align(a: Analysis, b: Analysis, words: Lexicon) -> Alignment:
    """Greedy, strongest evidence first; each unit is matched at most once."""
    left_a, left_b = list(a.units), list(b.units)
    matches: list[Match] = []

    def take(test: object, kind: str) -> None:
        for unit in list(left_a):
            for other in left_b:
                if test(unit, other):  # type: ignore[operator]
                    matches.append(Match(unit, other, kind))
                    left_a.remove(unit)
                    left_b.remove(other)
                    break

    take(lambda x, y: x.norm == y.norm, SAME)
    take(lambda x, y: (x.key == y.key or _inflected(x, y, words)) and not _opposed(words, x, y), SAME)
    if left_a and left_b:
        take(lambda x, y: words.synonyms(x.key, y.key) and not _opposed(words, x, y), SYNONYM)
        if len(left_a) * len(left_b) <= _MOST_TYPO_PAIRS:
            take(lambda x, y: _is_typo(x, y, words), TYPO)
        take(lambda x, y: _derived(x, y, words), DERIVED)
    if left_a or left_b:
        _join(left_a, left_b, matches)
        _join(left_b, left_a, matches, swapped=True)
        for left, side in ((left_a, "b"), (left_b, "a")):
            for unit in list(left):
                echo = next((m for m in matches if words.synonyms(unit.key, getattr(m, side).key)), None)
                if echo is not None and not unit.entity:
                    other = getattr(echo, side)
                    matches.append(Match(unit, other, ECHO) if side == "b" else Match(other, unit, ECHO))
                    left.remove(unit)
    return Alignment(tuple(matches), tuple(left_a), tuple(left_b))


_DEMONYMS = frozenset(
    [
        "n",
        "an",
        "ian",
        "ese",
        "ish",
        "i",
        "ean",
        "ino",
        "ano",
        "ana",
        "enho",
        "ense",
        "ais",
        "aise",
        "ien",
        "ienne",
        "isch",
        "ische",
    ]
)
"""Africa, African; Japan, Japanese."""


def _opposed(words: Lexicon, x: Unit, y: Unit) -> bool:
    return (
        words.opposed(x.norm, y.norm)
        or words.opposed(x.key, y.key)
        or opposed_by_prefix(x.norm, y.norm, words.language)
    )


def _derived(x: Unit, y: Unit, words: Lexicon) -> bool:
    if "_" in x.key or "_" in y.key or _opposed(words, x, y) or words.contrasted(x.key, y.key):
        return False
    if x.entity or y.entity:
        short, long = sorted((x.norm, y.norm), key=len)
        root = short[:-1] if short[-1] in "aeiouy" else short
        ending = long[len(root) :]
        return len(root) >= 4 and long.startswith(root) and {ending, ending.removesuffix("s")} & _DEMONYMS != set()
    return related(x.norm, y.norm, x.key, y.key)


_CLITICS = frozenset({"me", "te", "se", "nos", "os"})


def _inflected(x: Unit, y: Unit, words: Lexicon) -> bool:
    """Litre and litres, which lose different endings to the stemmer; Spanish casarme and casarse."""
    p, q = x.norm, y.norm
    if words.language not in ("pt", "es", "fr") or p[-1:] == q[-1:] != "e" or min(len(p), len(q)) < 4:
        return False
    if p.removesuffix("s") == q.removesuffix("s"):
        return True
    return words.language == "es" and p[:-2] == q[:-2] and p[-3] == "r" and {p[-2:], q[-2:]} <= _CLITICS


def _is_typo(x: Unit, y: Unit, words: Lexicon) -> bool:
    p, q = x.norm, y.norm
    if "_" in p or "_" in q or _opposed(words, x, y) or other_substance(p, q):
        return False
    return slip(p, q, words, x.entity or y.entity)


def _join(left: list[Unit], other: list[Unit], matches: list[Match], swapped: bool = False) -> None:
    """One word on one side, its parts or its initials on the other: e-mail, log in, WHO."""
    spelt = [_spelt(part) for part in other]
    initials = ["".join(piece[:1] for piece in part.norm.split("_")) for part in other]
    for unit in list(left):
        run = _parts_of(_spelt(unit), spelt, initials)
        if run is None:
            continue
        first = other[run.start]
        matches.append(Match(first, unit, JOINED) if swapped else Match(unit, first, JOINED))
        left.remove(unit)
        for row in (other, spelt, initials):
            del row[run]


_MOST_PARTS = 5


def _parts_of(whole: str, spelt: list[str], initials: list[str]) -> slice | None:
    """The first neighbours that are ``whole`` together, written out or by their initials."""
    for start in range(len(spelt)):
        text = letters = ""
        for end in range(start, min(start + _MOST_PARTS, len(spelt))):
            text += spelt[end]
            letters += initials[end]
            if text == whole or (len(letters) >= 3 and letters == whole):
                return slice(start, end + 1)
            if not whole.startswith(text) and not whole.startswith(letters):
                break
    return None


def _spelt(unit: Unit) -> str:
    return unit.norm.replace("_", "").replace("-", "")


def rarity(unit: Unit, language: str) -> float:
    """0 for the commonest word, 1 for one in no list; a half where the language has no list."""
    if language != "en":
        return 0.5
    if "_" in unit.key:
        return 0.3
    rank = frequent_words().get(unit.norm)
    if rank is None:
        rank = frequent_words().get(unit.key)
    return 1.0 if rank is None else min(1.0, rank / len(frequent_words()))
