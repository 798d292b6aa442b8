"""Which language a text is in, from its script and its function words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from cache.language.lexicon import LANGUAGES, detect_words, foreign_words, lexicon
from cache.language.tokens import Token

UNKNOWN = "und"
"""ISO 639-2 code for an undetermined language: too few signs, or one that has no lexicon."""
UNDECIDED = ""
"""Latin letters and no sign of any language: takes the language of the text it is compared with."""


@lru_cache(maxsize=1)
def _foreign_signs() -> dict[str, frozenset[str]]:
    """Function words that none of the known languages shares."""
    ours = frozenset(word for language in LANGUAGES for word in detect_words(language) | lexicon(language).stopwords)
    return {name: frozenset(word for word in words - ours if len(word) > 1) for name, words in foreign_words().items()}


_LETTERS = re.compile("[ąćčďđęěėğģįıķłľļńňņőřŕśšşșţťțůűųýźžżåøæăðþ]")
"""Letters that none of the known languages writes: Polish, Czech, Turkish, Romanian, Hungarian, Nordic, Baltic."""
_MARKS = {"ã": "pt", "õ": "pt", "¿": "es", "¡": "es", "ñ": "es", "ß": "de", "ä": "de", "œ": "fr", "ù": "fr", "è": "fr"}
"""Letters and marks that one of the languages has alone."""
_WHOLE = {"é": "pt", "où": "fr", "qué": "es", "cómo": "es", "cuál": "es", "und": "de", "não": "pt"}
"""Whole words that do."""


def _tell(token: Token) -> str:
    written = token.text.casefold()
    return _WHOLE.get(written) or next((_MARKS[c] for c in written if c in _MARKS), "")


def _words_of(tokens: Sequence[Token]) -> list[str]:
    return [part for token in tokens if token.kind == "word" for part in token.norm.split("'")]


def looks_english(tokens: Sequence[Token]) -> bool:
    """At least half of the words are in the English word list: enough where nothing speaks for another language."""
    words = _words_of(tokens)
    known = lexicon("en").known
    return 2 * sum(word in known for word in words) >= len(words)


def detect(tokens: Sequence[Token]) -> str:
    """One of ``LANGUAGES``, ``UNKNOWN`` or ``UNDECIDED``."""
    words = _words_of(tokens)
    if not words:
        return UNDECIDED
    latin = sum(1 for word in words if all(ord(c) < 0x250 for c in word))
    if latin * 2 < len(words):
        return UNKNOWN
    scores: dict[str, float] = {}
    for language in LANGUAGES:
        signs = detect_words(language)
        scores[language] = sum(1.0 for word in words if word in signs and len(word) > 1)
    for token in tokens:
        language = _tell(token)
        if language:
            scores[language] += 1.5
    foreign = max(sum(2.0 for word in words if word in signs) for signs in _foreign_signs().values())
    foreign += sum(2.0 for token in tokens if token.kind == "word" and _LETTERS.search(token.text.casefold()))
    best = max(scores.values())
    leaders = [language for language, score in scores.items() if score == best]
    if foreign > best:
        return UNKNOWN
    if len(leaders) == 1 and best > 0 and foreign < best:
        return leaders[0]
    known = {
        language: scores[language] + 0.5 * sum(1 for word in words if word in lexicon(language).vocabulary)
        for language in LANGUAGES
    }
    best = max(known.values())
    leaders = [language for language, score in known.items() if score == best]
    if best <= 0:
        return UNDECIDED if foreign == 0 else UNKNOWN
    if foreign >= best:
        return UNKNOWN
    return leaders[0] if len(leaders) == 1 else UNDECIDED
