"""Does the answer depend on when the question is asked? Judged by what is asked for, not by single words."""

from __future__ import annotations

import re

from cache.language.detect import detect
from cache.language.lexicon import LANGUAGES
from cache.language.normalise import fold, normalise
from cache.language.tokens import tokenise
from cache.time_signs import CLOCK, SCRIPT_SIGNS, SIGNS, TITLES, TOOLS, WORKS

_TIME_CHARACTERS = 2000
_NEIGHBOURHOOD = 200
"""Characters on either side of a sign by which its language is told: enough of them, and never a long text's all."""

_MARKS_LEFT_OUT = "\u0640\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u0653\u0654\u0655"
_ONE_LETTER = str.maketrans("łıёأإآىة", "liеااايه", _MARKS_LEFT_OUT)
"""Letters that are written one for another in haste, and Arabic marks that are mostly left out."""


def _plain(text: str) -> str:
    """Folded further than for comparing texts: what is asked without accents asks the same."""
    text = fold(text)
    return text if text.isascii() else text.translate(_ONE_LETTER)


def _between_spaces(sign: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{_plain(sign)})(?!\w)")


_ROWS = {name: _between_spaces(sign) for name, sign in SIGNS.items()}
_SCRIPT_ROWS = {name: re.compile(_plain(sign)) for name, sign in SCRIPT_SIGNS.items()}
_ANY = _between_spaces("|".join(SIGNS.values()))
"""Most texts have no sign of any language: one search, and no language to tell."""
_CLOCK = _between_spaces(CLOCK)
_TOOLS = re.compile(rf"(?<![\w.]){TOOLS}(?![\w+#])")
_QUOTED = re.compile(r"[\"„][^\"]{1,300}\"|「[^」]{1,300}」|(?<!\w)'.{1,300}?'(?!\w)")
"""As ``normalise`` leaves them; an apostrophe stands behind a letter."""
_WORKS = re.compile(rf"\b{WORKS}\b")
_TITLES = re.compile(rf"(?<=[^\W\d_] ){TITLES}\b(?! [A-Z])")
_WORD = re.compile(r"\w")


def time_sensitive(text: str) -> bool:
    """Words whose answer changes with the clock, near the beginning or the end: the search must not stall the loop."""
    if len(text) > 2 * _TIME_CHARACTERS:
        text = text[:_TIME_CHARACTERS] + "\n" + text[-_TIME_CHARACTERS:]
    text = _own_words(normalise(text))
    plain = _plain(text)
    rows = _ROWS if _ANY.search(plain) is not None else {}
    if not plain.isascii():
        rows = rows | _SCRIPT_ROWS
    languages: dict[int, str] = {}
    for name, row in rows.items():
        for match in row.finditer(plain):
            if _reads_the_clock(plain, match.start()):
                continue
            place = match.start() // _NEIGHBOURHOOD
            if place not in languages:
                languages[place] = _language_around(text, place)
            # One language's word is another's: French hier is yesterday, German hier is here.
            if languages[place] == name or languages[place] not in LANGUAGES:
                return True
    return False


def warm_up() -> None:
    """Read what is read on first use, the tables that tell languages apart: it would hold up the loop."""
    time_sensitive("Is the pharmacy open now?")


def _own_words(text: str) -> str:
    """Without what is quoted, as in: translate 'see you tomorrow'; without titles. All of it where all is a quote."""
    outside = _QUOTED.sub(" ", text)
    if _WORD.search(outside) is None:
        outside = text
    return _TITLES.sub(" ", outside) if _WORKS.search(outside.casefold()) else outside


def _reads_the_clock(plain: str, start: int) -> bool:
    """How to get today's date in Python is asked, and not the date."""
    return _CLOCK.match(plain, start) is not None and _TOOLS.search(plain) is not None


def _language_around(text: str, place: int) -> str:
    """Folding moves a sign by a few characters at most; what stands around it is the same."""
    start = place * _NEIGHBOURHOOD
    return detect(tokenise(text[max(0, start - _NEIGHBOURHOOD) : start + 2 * _NEIGHBOURHOOD]))
