"""Text cut into words, numbers, identifiers and marks."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cache.language.normalise import fold

_TOKEN = re.compile(
    r"""
    (?P<identifier>
        https?://\S+
      | [\w.+-]+@[\w-]+(?:\.[\w-]+)+
      | (?<![\w-])--?[A-Za-z][\w-]*(?:=\S+)?
      | (?:[A-Za-z0-9]+_)+[A-Za-z0-9_]+
      | (?:~|\.{1,2})?(?:/[\w.-]+){2,}/?
      | [A-Za-z]:\\\S+
      | \b[\w-]+\.(?:py|js|ts|json|yaml|yml|csv|txt|md|html|css|sql|sh|exe|dll|jpg|png|gif|zip|com|org|net|io|dev)\b
      | \b[cCfF](?:\#|\+\+)(?!\w)
    )
  | (?P<model>\b(?:2fa|[23]d)\b|\b(?!v\d)[A-Za-z]{1,3}\d+[A-Za-z]?\b)
  | (?P<number>
        \d{4}-\d{1,2}-\d{1,2}
      | \d{1,2}/\d{1,2}/\d{2,4}
      | \d{1,2}[:h]\d{2}(?::\d{2})?(?!\d)
      | \d+(?:[.,]\d+)*
    )
  | (?P<word>[^\W\d_]+(?:'[^\W\d_]+|-[^\W\d_]+)*)
  | (?P<mark>[^\w\s]|_)
    """,
    re.VERBOSE,
)

_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
"""Scripts written without spaces between words (and Hangul, whose endings stick): each character is a token."""


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    """As written, normalised."""
    norm: str
    """Folded: what is compared."""
    kind: str
    """``word``, ``number``, ``identifier`` or ``mark``."""
    starts: bool = False
    """First word of a sentence: its capital says nothing."""


def tokenise(text: str) -> list[Token]:
    """``text`` already normalised."""
    out: list[Token] = []
    starts = True
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "mark"
        written = match.group()
        if kind == "mark":
            out.append(Token(written, written, kind))
            starts = starts or written in ".!?:;\"'(-"
            continue
        if kind == "model":
            kind = "word"
        if kind == "identifier":
            written = written.rstrip(".,;:!?)'\"")
        if kind == "word" and _NO_SPACES.search(written):
            out.extend(Token(char, fold(char), "word", starts) for char in written)
        else:
            out.append(Token(written, fold(written), kind, starts))
        starts = False
    return out
