"""Two texts side by side: what every guard and every feature is a function of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cache.language.alignment import Alignment, align
from cache.language.analysis import Analysis, Unit, analyse
from cache.language.detect import UNDECIDED, UNKNOWN, detect, looks_english
from cache.language.frames import EXPRESSED, says
from cache.language.lexicon import Lexicon, lexicon
from cache.language.normalise import normalise
from cache.language.tokens import tokenise


@dataclass(frozen=True)
class Comparison:
    """``a`` stored, ``b`` asked. Alignment exists where the language of both is known and the same."""

    a: Analysis
    b: Analysis
    words: Lexicon | None
    alignment: Alignment

    @property
    def identical(self) -> bool:
        """Equal but for case, sentence marks and spaces."""
        return self.a.spelt == self.b.spelt and bool(self.a.plain)

    @property
    def folded(self) -> bool:
        """Equal but for accents, too."""
        return self.a.plain == self.b.plain and bool(self.a.plain)

    @cached_property
    def left_a(self) -> tuple[Unit, ...]:
        """Units of A without a counterpart, light words left out."""
        return _content(self.alignment.left_a, self.b)

    @cached_property
    def left_b(self) -> tuple[Unit, ...]:
        return _content(self.alignment.left_b, self.a)


def _content(units: tuple[Unit, ...], other: Analysis) -> tuple[Unit, ...]:
    """Without light words and without what the other's question word says already."""
    said = tuple(sign for frame in other.frames for sign in EXPRESSED.get(frame, ()))
    return tuple(unit for unit in units if not unit.light and (unit.entity or not says(unit.key, said)))


def compare(stored: str, asked: str) -> Comparison:
    """Analyse both in one language: a text too short to tell takes the language of the other."""
    a, b = analyse(stored), analyse(asked)
    if a.language != b.language:
        if a.language == UNDECIDED and b.known:
            a = analyse(stored, b.language)
        elif b.language == UNDECIDED and a.known:
            b = analyse(asked, a.language)
        elif a.known and b.known:
            a, b = _agree(stored, asked, a, b)
    elif a.language == UNDECIDED:
        tokens = tokenise(normalise(f"{stored} {asked}"))
        together = detect(tokens) or ("en" if looks_english(tokens) else UNKNOWN)
        if together != UNKNOWN:
            a, b = analyse(stored, together), analyse(asked, together)
    if a.known and a.language == b.language:
        words = lexicon(a.language)
        return Comparison(a, b, words, align(a, b, words))
    return Comparison(a, b, None, Alignment((), a.units, b.units))


def _agree(stored: str, asked: str, a: Analysis, b: Analysis) -> tuple[Analysis, Analysis]:
    """A short text may be read as a neighbouring language: the longer one decides where it knows the words."""
    longer, shorter = (a, b) if len(a.plain) >= len(b.plain) else (b, a)
    known = lexicon(longer.language).known
    if shorter.plain and sum(word in known for word in shorter.plain) >= 0.6 * len(shorter.plain):
        read = analyse(stored if shorter is a else asked, longer.language)
        return (read, b) if shorter is a else (a, read)
    return a, b
