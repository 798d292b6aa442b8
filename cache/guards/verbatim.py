"""Texts in which every word counts: code, and long ones. There only the same words may be served."""

from __future__ import annotations

import re

from cache.guards.comparison import Comparison

_CODE = re.compile(r"[{};]|=>|==|!=|::|</|\w\(|\[\w+\]|^\s*(?:def\s|#include)")
_LONG_TOKENS = 60
"""The score was trained on questions; a word changed in a page of text hardly moves any of its features."""


def verbatim(pair: Comparison) -> str | None:
    if pair.words is None:
        return None
    if _CODE.search(pair.a.text) or _CODE.search(pair.b.text):
        return None if _letters(pair.a.text) == _letters(pair.b.text) else "code differs"
    if max(len(pair.a.plain), len(pair.b.plain)) > _LONG_TOKENS and (pair.left_a or pair.left_b):
        return "words differ in a long text"
    return None


def _letters(text: str) -> str:
    """Without spaces and the final mark: in code case and every other mark count."""
    return re.sub(r"\s+", "", text).rstrip("?.!")
