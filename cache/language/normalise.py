"""One spelling for what Unicode can spell in many ways."""

from __future__ import annotations

import re
import unicodedata

_SAME_MARKS = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201b": "'", "\u00b4": "'", "\u0060": "'", "\u02bc": "'",
        "\u201c": '"', "\u201d": '"', "\u00ab": '"', "\u00bb": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": " - ", "\u2212": "-",
        "\u20ac": " euro ", "\u00a3": " pound ", "\u00a5": " yen ",
        "\u20b9": " rupee ", "\u20a9": " won ", "\u20bd": " ruble ", "\u20ba": " lira ", "\u20aa": " shekel ",
        "\u20ab": " dong ", "\u0e3f": " baht ", "\u20b1": " peso ", "\u20b4": " hryvnia ", "\u20a6": " naira ",
        "\u2044": "/",
        "\u00a1": " ", "\u00bf": " ", "\u2026": " ... ",
    }
)  # fmt: skip
_SUPERSCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f", "0123456789+-n"
)
_RAISED = re.compile("([\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b\u207f]+)")
_SQUARED = re.compile(r"(?:\b|(?<=\d))(?:mm|cm|dm|m|km|ft|in|yd|mi)$")
"""Square metres are no power: NFKC writes them m2, as people do."""
_FRACTION = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215f])")
_UNSEEN = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
_SPACE = re.compile(r"\s+")


def normalise(text: str) -> str:
    """NFKC, no invisible or control characters, plain quotes and dashes, single spaces. Case is kept."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _FRACTION.sub(" ", powers(text))).translate(_SAME_MARKS)
    else:
        text = text.translate(_SAME_MARKS)
    text = _UNSEEN.sub("", text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " if c.isspace() or ord(c) < 32 else "" for c in text)
    return _SPACE.sub(" ", text).strip()


def powers(text: str) -> str:
    """10 to the second is 10^2, which NFKC makes 102."""
    parts = _RAISED.split(text)
    for at in range(1, len(parts), 2):
        mark = "" if _SQUARED.search(parts[at - 1]) else "^"
        parts[at] = mark + parts[at].translate(_SUPERSCRIPTS)
    return "".join(parts)


def fold(text: str) -> str:
    """Case and Latin diacritics removed. Marks of other scripts stay: there they tell words apart."""
    text = text.casefold()
    if text.isascii():
        return text
    kept: list[str] = []
    for char in unicodedata.normalize("NFD", text):
        if unicodedata.combining(char) and kept and kept[-1].isascii():
            continue
        kept.append(char)
    return unicodedata.normalize("NFC", "".join(kept)).replace("œ", "oe").replace("æ", "ae").replace("ø", "o")
