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
        "\u00a1": " ", "\u00bf": " ", "\u2026": " ... ",
    }
)  # fmt: skip
_UNSEEN = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
_SPACE = re.compile(r"\s+")


def normalise(text: str) -> str:
    """NFKC, no invisible or control characters, plain quotes and dashes, single spaces. Case is kept."""
    text = unicodedata.normalize("NFKC", text).translate(_SAME_MARKS)
    text = _UNSEEN.sub("", text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " if c.isspace() or ord(c) < 32 else "" for c in text)
    return _SPACE.sub(" ", text).strip()


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
