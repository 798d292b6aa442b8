"""Words that are spoken of: in quotes, after between, say, mean, use. There small words, too, count as written."""

from __future__ import annotations

import re
from collections import Counter

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.lexicon import Lexicon
from cache.language.normalise import fold

_QUOTED = re.compile(r"\"([^\"\n]{1,80})\"|(?<!\w)'([^'\n]{1,80})'(?!\w)|\u201e([^\"\n]{1,80})\"")
_MOST_WORDS = 6
_BETWEEN = {"between": "and", "entre": "e y et", "zwischen": "und"}
_AND = {word: frozenset(text.split()) for word, text in _BETWEEN.items()}
_MENTION_TEXT = (
    "say use using write spell pronounce translate usar usa uso dizer diz digo escrever escrevo decir dice digo "
    "escribir escribe utiliser emploie utilise dire dit ecrire ecrit sagt sagen benutzt verwendet schreibt "
    "verwenden benutzen gebraucht"
)
_MENTION = frozenset(_MENTION_TEXT.split())
_MEAN = frozenset({"mean", "means", "significa", "signifie", "bedeutet", "heisst", "stand"})
_ENDS_TEXT = "in em en auf instead vs versus when for"
_ENDS = frozenset(_ENDS_TEXT.split())
_ARTICLES = frozenset({"a", "i", "o", "e", "y", "u", "d", "l", "s", "t", "m", "n", "j", "c", "x"})


def operands(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    return _quotes(pair) or _between(pair, words) or _mentioned(pair, words) or _letters(pair)


def _quotes(pair: Comparison) -> str | None:
    a, b = _quoted(pair.a), _quoted(pair.b)
    if not a and not b:
        return None
    for mine, other, text in ((a, b, pair.b), (b, a, pair.a)):
        for span in mine - other:
            if not _within(span.split(), text.plain):
                return f"{span} in quotes on one side"
    return None


def _quoted(text: Analysis) -> set[str]:
    found = set()
    for match in _QUOTED.finditer(text.text):
        span = next(group for group in match.groups() if group is not None)
        plain = " ".join(re.findall(r"[^\W_]+", fold(span)))
        if plain and plain.count(" ") < _MOST_WORDS and plain != " ".join(text.plain):
            found.add(plain)
    return found


def _within(span: list[str], plain: tuple[str, ...]) -> bool:
    parts = [part for norm in plain for part in re.findall(r"[^\W_]+", norm)]
    return any(parts[at : at + len(span)] == span for at in range(len(parts) - len(span) + 1))


def _small(run: tuple[str, ...], words: Lexicon) -> bool:
    return bool(run) and all(norm in words.stopwords or norm in words.directional for norm in run)


def _between(pair: Comparison, words: Lexicon) -> str | None:
    """The difference between in and on: two small words, which are no content anywhere else."""
    a, b = _sides(pair.a, words), _sides(pair.b, words)
    if (a or b) and a != b:
        for mine, other in ((a, pair.b), (b, pair.a)):
            if mine and not all(norm in other.plain for norm in mine):
                return f"{' '.join(sorted(mine))} on one side"
    return None


def _sides(text: Analysis, words: Lexicon) -> frozenset[str]:
    for at, norm in enumerate(text.plain):
        joints = _AND.get(norm)
        if joints is None:
            continue
        rest = text.plain[at + 1 : at + 5]
        joint = next((place for place, word in enumerate(rest) if place and word in joints), 0)
        if joint and joint + 1 < len(rest):
            sides = frozenset({rest[:joint][-1], rest[joint + 1]})
            return frozenset(side for side in sides if _small((side,), words) and side not in _DETERMINERS)
    return frozenset()


_DETERMINERS_TEXT = (
    "a an the my your our his her their this these those o a os as um uma meu minha el la los las un una mi su le les "
    "l une mon ma der die das den dem ein eine einen einem einer mein meine"
)
_DETERMINERS = frozenset(_DETERMINERS_TEXT.split())


def _mentioned(pair: Comparison, words: Lexicon) -> str | None:
    """When is por used, how do I say we: a small word that is the object of the verb."""
    a, b = _object(pair.a, words), _object(pair.b, words)
    if a and b and a != b and not {a, b} & _POINTING_ONLY:
        return f"{a} against {b}"
    return None


_POINTING_ONLY = frozenset(
    {"it", "this", "that", "them", "these", "those", "lo", "la", "isso", "isto", "esto", "eso", "das", "es", "dies",
     "ca", "cela", "se", "on", "man", "something"}
)  # fmt: skip


def _object(text: Analysis, words: Lexicon) -> str:
    plain = text.plain
    for at, norm in enumerate(plain):
        if norm in _MEAN and at >= 2 and plain[at - 2] in ("does", "do") and _small(plain[at - 1 : at], words):
            return plain[at - 1]
        if norm in _MENTION or (norm in _MEAN and words.language != "en"):
            rest = plain[at + 1 : at + 3]
            if not rest or not _small(rest[:1], words):
                continue
            if len(rest) == 1 or (rest[1] in _ENDS and rest[1] != rest[0]):
                return rest[0]
    return ""


def _letters(pair: Comparison) -> str | None:
    """A letter that stands for something, in upper and in lower case, by who writes both."""
    if pair.a.text == pair.b.text:
        return None
    a, b = _single(pair.a.text), _single(pair.b.text)
    upper, lower = a - b, b - a
    for letter in upper:
        if letter.swapcase() in lower and _cased(pair.a.text) and _cased(pair.b.text):
            return f"{letter} against {letter.swapcase()}"
    return None


_SINGLE = re.compile(r"(?<![\w'.-])[A-Za-z](?![\w'.-])")


def _single(text: str) -> Counter[str]:
    return Counter(letter for letter in _SINGLE.findall(text[1:]) if letter.lower() not in _ARTICLES)


def _cased(text: str) -> bool:
    """Case is used as the spelling wants it: a capital at the beginning, small letters after it."""
    return text[:1].isupper() and not text.isupper()
