"""Symbols that carry meaning, as written: not sentence marks, quotes, bullets or emphasis."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from cache.language.normalise import powers

MINUS = "-n"
"""A sign before a number."""
JOINED = "n-n"
"""A dash between two numbers: from the one to the other, or their difference."""

_DASH = "-\u2010\u2011\u2012\u2013\u2014\u2212"
_FREE = frozenset(
    ".,!?;:'\"`\u00b4\u00a8()\u2026\u00a1\u00bf\u00b7\u2022\u3001\u3002\uff0c\uff01\uff1f\uff1b\uff1a\uff08\uff09"
    "\u060c\u061f\u061b\u0964\u00ae\u00a9\u2122\u02bc" + _DASH
)
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060-\u206f\ufe00-\ufe0f\ufeff\U0001f3fb-\U0001f3ff]")
"""Invisible characters, forms of display, and the colour of a hand."""

_BULLET = re.compile(r"^[ \t]*(?:[-*+\u2022\u25aa\u25e6\u2023\u00b7\u2013\u2014>]|#{1,6})[ \t]+(?=\S)", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+(?=\w)", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<![\w*_])(\*{1,3}|~~)(?=[^\W\d_]|[\"'(])([^*_~\n]+?)(?<=[\w\"').!?])\1(?![\w*_])")
_MARKUP = re.compile(r"[*~#\n]")
_FENCE = re.compile(r"`{1,3}")

_DATE = re.compile(r"\b\d{4}-\d{1,2}-\d{1,2}\b|\b\d{1,2}([/.-])\d{1,2}\1\d{2,4}\b|\b\d{1,2}:\d{2}(?::\d{2})?\b")
"""Compared as quantities; where words are not known, as words."""
_MONEY_SIGNS = "$\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba\u20aa\u20ab\u0e3f\u20b1\u20b4\u20a6"
_SIGN = re.compile(r"(?:^|(?<=[\s(\[=*/^+,<>\u00d7\u00f7\u00b0$\u20ac\u00a3]))[-\u2212\u2013](?=[\d.]*\d|[xyz]\b)")
_BETWEEN = re.compile(rf"(?<=\d)[ \t]?([:/\{_DASH}])[ \t]?(?=\d)")
_MEASURED = re.compile(rf"(?<=\d)\s?[%\u00b0\uff05](?=[\s.,;:!?)\]CFcf]|$)|(?<=\d)\s?[{_MONEY_SIGNS}](?=[\s.,;!?)]|$)")
_MONEY = re.compile(rf"[{_MONEY_SIGNS}](?=\s?\d)")
"""Units beside a number belong to the quantity."""
_WORDS = re.compile(r"(?<=[^\W\d_])/(?=[^\W\d_])|(?<=[^\W\d_])&(?=[^\W\d_])")
"""A slash between two words says or."""
_RUN = re.compile(r"[^\w\s]+|(?<!\w)_+(?!\w)")
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]{2}")
_FACE = re.compile(r"(?<![\w:;=])[:;=][-'^]?[()\[\]|/\\*](?![\w(\[])|(?<![\w:;=])[:;=][-'^]?[DPpOo](?!\w)")
_WRITTEN = {"`": "'", "\u2212": "-", "\u2013": "-", "\u2014": "-", "\uff05": "%", "\uff03": "#", "\uff0b": "+",
            "\uff1d": "=", "\uff20": "@", "\uff06": "&", "\uff0f": "/", "\uff0a": "*", "\u2217": "*",
            "\u22c5": "*"}  # fmt: skip


def symbols(text: str) -> tuple[str, ...]:
    """In order. Taken before NFKC, which would make 102 of 10 to the second."""
    if text.isascii() and not _RUN.search(text.rstrip(".?! \n")):
        return ()
    text = unmarked(_UNSEEN.sub("", unicodedata.normalize("NFC", powers(text))))
    return tuple(_found(_FENCE.sub(" ", text).strip()))


def unmarked(text: str) -> str:
    """Without the signs of a heading, of a list and of emphasis."""
    if not _MARKUP.search(text):
        return text
    text = _HEADING.sub("", text)
    if "\n" in text.strip():
        text = _BULLET.sub("", text)
    return _EMPHASIS.sub(r"\2", text)


def _found(text: str) -> Iterator[str]:
    for pattern in (_FACE, _FLAG):
        for match in pattern.finditer(text):
            yield match.group()
        text = pattern.sub(" ", text)
    text = _DATE.sub(" 0 ", text)
    for match in _BETWEEN.finditer(text):
        yield JOINED if match[1] in _DASH else f"n{match[1]}n"
    text = _BETWEEN.sub(" ", text)
    for _ in _SIGN.finditer(text):
        yield MINUS
    for pattern in (_SIGN, _MEASURED, _MONEY, _WORDS):
        text = pattern.sub(" ", text)
    for match in _RUN.finditer(text):
        yield from _run(text, match.start(), match.group())


def _run(text: str, at: int, run: str) -> Iterator[str]:
    """What of marks side by side is a symbol."""
    run = "".join(_WRITTEN.get(char, char) for char in run)
    before, after = text[at - 1 : at], text[at + len(run) : at + len(run) + 1]
    if not before.strip() and not after.strip() and _operand(run):
        yield run
        return
    kept = "".join(char for char in run if char not in _FREE and not _quotes(char))
    if kept:
        # a parenthesis inside an expression, as in (2+3)*4
        yield run if before.isalnum() and after.isalnum() and set(run) & set("()") else kept


def _operand(run: str) -> bool:
    """Marks that stand by themselves and are more than the end of a sentence or a dash."""
    if all(char in "-\"'\u2026.,!?()" or _quotes(char) for char in run):
        return False
    return len(run) > 1


def _quotes(char: str) -> bool:
    return unicodedata.category(char) in ("Pi", "Pf") or char in "\u201e\u201a\u300c\u300d\u300e\u300f\u300a\u300b"
