"""What is known of a language: function words, frames of questions, synonyms, opposites, classes of contrast.

The tables are hand-made and live in ``cache/data/lexicon``; ``words_en.json`` lists the whole words of the
BERT-base-uncased vocabulary (Google, Apache-2.0), most frequent first.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

from cache.language.normalise import fold, normalise
from cache.language.stem import stem
from cache.language.tokens import tokenise

LANGUAGES = ("en", "pt", "es", "fr", "de")
_WRITTEN = re.compile(r"[^\W\d_]+")
_ELISIONS = ("l", "d", "qu", "j", "n", "s", "c", "m", "t", "lorsqu", "puisqu", "jusqu")

Phrase = tuple[str, ...]


def split_elision(norm: str) -> list[str]:
    """French l'eau -> l, eau."""
    head, mark, rest = norm.partition("'")
    return [head, *split_elision(rest)] if mark and head in _ELISIONS and rest else [norm]


class PhraseTable:
    """Longest match of token sequences; each phrase has a value."""

    def __init__(self) -> None:
        self._by_first: dict[str, dict[Phrase, Any]] = defaultdict(dict)
        self._longest: dict[str, int] = {}

    def add(self, phrase: Phrase, value: Any) -> None:
        if phrase:
            self._by_first[phrase[0]][phrase] = value
            self._longest[phrase[0]] = max(self._longest.get(phrase[0], 0), len(phrase))

    def get(self, phrase: Phrase) -> Any:
        return self._by_first.get(phrase[0], {}).get(phrase) if phrase else None

    def match(self, tokens: list[str], at: int) -> tuple[int, Any] | None:
        """(length, value) of the longest phrase at ``at``."""
        if at >= len(tokens):
            return None
        first = tokens[at]
        phrases = self._by_first.get(first)
        if phrases is None:
            return None
        for length in range(min(self._longest[first], len(tokens) - at), 0, -1):
            found = phrases.get(tuple(tokens[at : at + length]))
            if found is not None:
                return length, found
        return None


@dataclass
class Lexicon:
    """One language. Words are folded; synonyms, opposites and contrasts are also keyed by stem."""

    language: str
    stopwords: frozenset[str]
    light: frozenset[str]
    negation: frozenset[str]
    exclusion: frozenset[str]
    preventive: frozenset[str]
    """Stems of verbs that negate what they govern: stop rice from sticking, cook rice that does not stick."""
    narrowing: frozenset[str]
    """Stems of words that make a question one about fewer things: annual, nested; (a visa) to work; halftime."""
    directional: frozenset[str]
    contractions: dict[str, list[str]]
    drop: PhraseTable
    frames: PhraseTable
    quantifiers: PhraseTable
    formats: PhraseTable
    lengths: PhraseTable
    languages: frozenset[str]
    numbers: dict[str, float | str]
    persons: dict[str, frozenset[str]]
    modality: PhraseTable
    tense: dict[str, frozenset[str]]
    phrases: PhraseTable
    """Sequences of stems of more than one word -> the phrase joined by ``_``."""
    groups: dict[str, frozenset[int]]
    """Stem or joined phrase -> ids of its synonym groups."""
    opposites: frozenset[tuple[str, str]]
    opposites_of: dict[str, tuple[str, ...]]
    contrasts: dict[str, frozenset[str]]
    vocabulary: frozenset[str] = frozenset()
    """Every word that the tables hold: what tells the language of a short text."""
    known: frozenset[str] = field(default=frozenset())
    """Correctly spelt words: a typo never leads from one to another."""

    def stem(self, norm: str) -> str:
        return norm if "_" in norm else stem(norm, self.language)

    def synonyms(self, a: str, b: str) -> bool:
        """Of two stems or joined phrases."""
        groups = self.groups.get(a)
        return groups is not None and not groups.isdisjoint(self.groups.get(b, frozenset()))

    def opposed(self, a: str, b: str) -> bool:
        return (a, b) in self.opposites

    def opposed_by_synonym(self, a: str, b: str) -> bool:
        """An opposite of ``a`` is a synonym of ``b``, or the other way round."""
        return any(self.synonyms(b, other) for other in self.opposites_of.get(a, ())) or any(
            self.synonyms(a, other) for other in self.opposites_of.get(b, ())
        )

    def contrasted(self, a: str, b: str) -> bool:
        """Two members of one class, as two colours."""
        classes = self.contrasts.get(a)
        return classes is not None and a != b and not classes.isdisjoint(self.contrasts.get(b, frozenset()))


def _words(text: str) -> frozenset[str]:
    return frozenset(part for word in text.split() for part in _tokens(word.replace("_", " "))) - {"'"}


def _tokens(text: str) -> list[str]:
    out: list[str] = []
    for token in tokenise(normalise(text)):
        if token.kind != "mark":
            out.extend(split_elision(token.norm))
    return out


def _expand(words: Iterable[str], contractions: dict[str, list[str]]) -> list[str]:
    return [part for word in words for part in contractions.get(word, [word])]


def _table(values: dict[str, str], contractions: dict[str, list[str]]) -> PhraseTable:
    table = PhraseTable()
    for name, members in values.items():
        for member in members.split():
            table.add(tuple(_expand(_tokens(member.replace("_", " ")), contractions)), name)
    return table


def _read(name: str) -> Any:
    return json.loads(resources.files("cache").joinpath("data", name).read_text("utf-8"))


@lru_cache(maxsize=1)
def frequent_words() -> dict[str, int]:
    """English word -> rank by frequency, 0 the most frequent."""
    return {word: rank for rank, word in enumerate(_read("words_en.json")["words"].split())}


@lru_cache(maxsize=1)
def foreign_words() -> dict[str, frozenset[str]]:
    """Function words of languages that have no lexicon, so that they are recognised as not known."""
    return {name: _words(text) for name, text in _read("lexicon/other.json").items()}


@lru_cache(maxsize=len(LANGUAGES))
def lexicon(language: str) -> Lexicon:
    data = _read(f"lexicon/{language}.json")
    contractions = {fold(short): _tokens(long) for short, long in data["contractions"].items()}

    def key(member: str) -> str:
        words = _expand(_tokens(member.replace("_", " ")), contractions)
        return "_".join(words) if len(words) > 1 else stem(words[0], language) if words else ""

    phrases = PhraseTable()
    groups: dict[str, set[int]] = defaultdict(set)
    contrasts: dict[str, set[str]] = defaultdict(set)
    opposites: set[tuple[str, str]] = set()
    known: set[str] = set()

    def enter(member: str) -> str:
        words = _expand(_tokens(member.replace("_", " ")), contractions)
        known.update(words)
        joined = key(member)
        if len(words) > 1:
            phrases.add(tuple(stem(word, language) for word in words), joined)
        return joined

    for number, group in enumerate(data["synonyms"]):
        for member in group.split():
            groups[enter(member)].add(number)
    for pair in data["antonyms"]:
        left, right = (enter(side) for side in pair.split("/"))
        if left != right:
            opposites |= {(left, right), (right, left)}
        else:  # one stem for both, as filho and filha: told apart by their forms
            left, right = (fold(side) for side in pair.split("/"))
            opposites |= {(left, right), (right, left)}
    for name, members in data["contrasts"].items():
        for member in members.split():
            contrasts[enter(member)].add(name)
    opposites_of: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for left, right in sorted(opposites):
        opposites_of[left] += (right,)
    frames = PhraseTable()
    for name, texts in data["frames"].items():
        for text in texts:
            frames.add(tuple(_expand(_tokens(text), contractions)), name)
    drop = PhraseTable()
    for text in data["drop"]:
        drop.add(tuple(_expand(_tokens(text), contractions)), True)
    stopwords = _words(data["stopwords"]) | frozenset(contractions)
    known |= stopwords | _words(data["light"])
    for text in [*data["drop"], *(text for texts in data["frames"].values() for text in texts)]:
        known.update(_tokens(text))
    vocabulary = frozenset(known)
    if language == "en":
        known |= frequent_words().keys()
    return Lexicon(
        language=language,
        stopwords=stopwords,
        light=_words(data["light"]) | frozenset(stem(word, language) for word in _words(data["light"])),
        negation=_words(data["negation"]),
        exclusion=_words(data["exclusion"]),
        preventive=frozenset(stem(word, language) for word in _words(data["preventive"])),
        narrowing=frozenset(stem(word, language) for word in _words(data["narrowing"])),
        directional=_words(data["directional"]),
        contractions=contractions,
        drop=drop,
        frames=frames,
        quantifiers=_table(data["quantifiers"], contractions),
        formats=_table(data["formats"], contractions),
        lengths=_table(data["lengths"], contractions),
        languages=_words(data["languages"]),
        numbers={fold(word): value for word, value in data["numberwords"].items()},
        persons={name: _words(text) for name, text in data["persons"].items()},
        modality=_table(data["modality"], contractions),
        tense={name: _words(text) for name, text in data["tense"].items()},
        phrases=phrases,
        groups={member: frozenset(ids) for member, ids in groups.items()},
        opposites=frozenset(opposites),
        opposites_of=opposites_of,
        contrasts={member: frozenset(names) for member, names in contrasts.items()},
        vocabulary=vocabulary,
        known=frozenset(known),
    )


@lru_cache(maxsize=len(LANGUAGES))
def detect_words(language: str) -> frozenset[str]:
    """Function words that tell the language."""
    return _words(_read(f"lexicon/{language}.json")["detect"])


@lru_cache(maxsize=len(LANGUAGES))
def written_words(language: str) -> frozenset[str]:
    """Every word of the tables as it is written, with its accents."""
    return frozenset(_WRITTEN.findall(json.dumps(_read(f"lexicon/{language}.json"), ensure_ascii=False).casefold()))
