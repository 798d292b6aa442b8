"""One text taken apart once: content units with their roles, frame of the question, quantities, small words."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache

from cache.language.detect import UNDECIDED, UNKNOWN, detect
from cache.language.lexicon import Lexicon, PhraseTable, frequent_words, lexicon, split_elision
from cache.language.manners import without_manners
from cache.language.marks import symbols, unmarked
from cache.language.normalise import normalise
from cache.language.quantities import SIGNS, quantities
from cache.language.tokens import Token, tokenise

_CLAUSE_MARKS = frozenset(".!?;,:-(")
_OPERATORS = frozenset("=^*+<>×÷√≤≥≠")
"""Marks that are part of what is asked, as in an equation."""
_BOUNDS = {
    word: side
    for side, text in {
        "<": "under below less fewer younger within until up menos menor abaixo hasta ate moins unter weniger maximal "
        "hochstens",
        ">": "over above more exceeding older beyond mais maior acima mas mayor plus uber mehr mindestens",
        "from": "from desde von ab depuis",
        "to": "to into hacia nach auf vers",
    }.items()
    for word in text.split()
}
_BEFORE_A_NUMBER_TEXT = (
    "than the a age of que de do da os as la el los las le les als der die das version aged to £ $ pound euro yen "
)
_BEFORE_A_NUMBER = frozenset(_BEFORE_A_NUMBER_TEXT.split())
_STRANDED = frozenset({"of", "for", "with", "from", "to", "into", "by", "against"})
_SEPARABLE_TEXT = "turn switch log sign shut back put take throw set fill pick look give call bring hand get send move "
_SEPARABLE = frozenset(_SEPARABLE_TEXT.split())
_PARTICLES = frozenset(["on", "off", "out", "up", "down", "in", "away", "back"])
_SAME_ROLE = {"into": "to", "onto": "to", "toward": "to", "towards": "to", "hacia": "a", "hasta": "a",
              "vers": "a", "au": "a",
              "do": "de", "da": "de", "dos": "de", "das": "de", "del": "de", "du": "de", "no": "em",
              "na": "em", "nos": "em",
              "nas": "em", "al": "a", "pelo": "por", "pela": "por", "zum": "zu", "zur": "zu", "vom": "von",
              "im": "in", "ins": "in", "ans": "an", "aufs": "auf"}  # fmt: skip
_ADJUNCT = frozenset(
    {"at", "on", "with", "during", "within", "em", "com", "durante", "en", "con", "avec", "pendant", "am", "bei", "mit"}
)
"""After these even a light word says where, when or with what: at work."""
_SECOND_HALVES = frozenset({"pas", "jamais", "rien", "personne", "aucun", "aucune"})
"""French: ne ... pas is one negation."""
_COMPARED_AS_WORDS = frozenset({"minimum", "maximum", "average", "half", "best", "worst", "last", "first", "only"})
"""Quantifiers that are content words too, with synonyms of their own."""
_ORIGINS = {
    "hasta": frozenset({"desde", "de"}),
    "ate": frozenset({"desde", "de", "do", "da"}),
    "bis": frozenset({"von", "ab"}),
    "jusqu": frozenset({"de", "depuis", "du"}),
}
"""Up to, unless it is said from where: then it is a direction."""
_BEFORE_INFINITIVE_TEXT = (
    "not unable able want wants need needs try trying tried like have has going used supposed allowed "
    "forgot learn help how way ways best time when where what whether required necessary possible easy "
    "hard start begin continue keep "
)
_BEFORE_INFINITIVE = frozenset(_BEFORE_INFINITIVE_TEXT.split())
_BEFORE_A_FRAME_TEXT = (
    "by until since from at in for with to a ate de em com por para desde hasta con en depuis avec pour bis ab "
    "seit um mit zu fur "
)
_BEFORE_A_FRAME = frozenset(_BEFORE_A_FRAME_TEXT.split())
_GOVERNED = frozenset({"when", "where", "who", "howmuch", "howmany", "howlong"})
_PARTICLE_REACH = 5
"""Words between a verb and its particle: turn the living room lights off."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A content word, or a phrase known to mean one thing."""

    norm: str
    key: str
    """Stem, or the phrase joined by ``_``."""
    place: int
    role: str
    """The directional word that governs it, or empty."""
    light: bool
    """Says little beside the rest: way, steps, information."""
    entity: bool
    """Written like a name."""
    rare: bool
    """English and in no word list: probably a name or a term."""
    linked: bool = False
    """Joined to its neighbour by and, or, versus: order says nothing."""


@dataclass(frozen=True)
class Analysis:
    text: str
    language: str
    plain: tuple[str, ...]
    """Folded tokens without marks, as written."""
    spelt: tuple[str, ...] = ()
    """The same with their accents."""
    symbols: tuple[str, ...] = ()
    """Marks that are no sentence marks, in order."""
    units: tuple[Unit, ...] = ()
    frames: tuple[str, ...] = ()
    quantities: Counter[str] = field(default_factory=Counter)
    identifiers: Counter[str] = field(default_factory=Counter)
    negations: int = 0
    exclusions: Counter[str] = field(default_factory=Counter)
    quantifiers: Counter[str] = field(default_factory=Counter)
    formats: frozenset[str] = frozenset()
    lengths: frozenset[str] = frozenset()
    languages: Counter[str] = field(default_factory=Counter)
    persons: frozenset[str] = frozenset()
    genders: frozenset[str] = frozenset()
    modality: frozenset[str] = frozenset()
    tense: str = ""
    directions: Counter[str] = field(default_factory=Counter)
    functions: frozenset[str] = frozenset()
    """Small words left after frames: compared softly."""
    expression: tuple[str, ...] = ()
    """Numbers and operators in order, where there are operators."""
    sequence: tuple[str, ...] = ()
    """Canonical quantities in order."""
    bounds: Counter[str] = field(default_factory=Counter)
    """Quantities with the side that they bound, as ``< 25`` for under 25, ``from 0`` for from zero."""
    ending: str = ""
    """A preposition that ends the text: its object stands at the beginning, as in what is it used for."""

    @property
    def known(self) -> bool:
        return self.language not in (UNKNOWN, UNDECIDED)


@lru_cache(maxsize=8192)
def analyse(text: str, language: str = "") -> Analysis:
    """``language`` empty: detected. Never raises for any text."""
    normal = normalise(unmarked(text))
    tokens = tokenise(normal)
    said = [token for token in tokens if token.kind != "mark"]
    plain, spelt = tuple(token.norm for token in said), tuple(_accented(token.text) for token in said)
    language = language or detect(tokens)
    if language in (UNKNOWN, UNDECIDED):
        said_so = without_manners(spelt) if language == UNKNOWN else slice(None)
        return Analysis(normal, language, plain[said_so], spelt[said_so], symbols(text))
    read = _Reader(normal, tokens, plain, lexicon(language)).read()
    return replace(read, spelt=spelt, symbols=symbols(text))


def _accented(written: str) -> str:
    return unicodedata.normalize("NFC", written.casefold())


class _Reader:
    """Consumes tokens step by step; ``used`` marks what an earlier step explained."""

    def __init__(self, text: str, tokens: list[Token], plain: tuple[str, ...], words: Lexicon) -> None:
        self.text, self.plain, self.words = text, plain, words
        self.tokens = self._expand(tokens)
        self.norms = [token.norm for token in self.tokens]
        shouting = not any(character.islower() for character in text)
        self.stems = [
            # the last letter of HTTPS is no plural
            token.norm if token.text.isupper() and not shouting else words.stem(token.norm)
            for token in self.tokens
        ]
        self.used = [token.kind == "mark" for token in self.tokens]
        self.frames: list[str] = []

    def _expand(self, tokens: list[Token]) -> list[Token]:
        out: list[Token] = []
        for token in tokens:
            if token.kind != "word":
                out.append(token)
                continue
            if token.text == "US":
                token = replace(token, norm="usa")
            head, dash, tail = token.norm.partition("-")
            if dash and tail == "free" and self.words.language == "en":
                out += [replace(token, norm=head, text=token.text[: len(head)]), Token("without", "without", "word")]
                continue
            if dash and isinstance(self.words.numbers.get(head), int | float):
                out += [Token(head, head, "word"), Token(tail, tail, "word")]
                continue
            parts = self.words.contractions.get(token.norm)
            if parts is None and "'" in token.norm:
                parts = split_elision(token.norm) if self.words.language == "fr" else None
                if parts is None:
                    stripped = token.norm.removesuffix("'s").removesuffix("'")
                    text = token.text[: len(stripped)]
                    token = replace(token, norm=stripped, text=text) if stripped else token
            if not parts:
                out.append(token)
            elif len(parts) == 1:
                out.append(replace(token, norm=parts[0]))
            else:
                keep = token.text[-len(parts[-1]) :] if parts[-1] and token.norm.endswith(parts[-1]) else parts[-1]
                out.extend(Token(part, part, "word", token.starts) for part in parts[:-1])
                out.append(Token(keep, parts[-1], "word", token.starts))
        return out

    def read(self) -> Analysis:
        words = self.words
        self._drop()
        self._frame()
        modality = frozenset(self._labels(words.modality))
        joined = self._phrases()
        found = quantities(self.tokens, words.numbers, words.language)
        free = [quantity for quantity in found if not self.used[quantity.at]]
        for quantity in free:
            for place in range(quantity.at, quantity.at + quantity.length):
                self.used[place] = True
            if quantity.at and self.norms[quantity.at - 1] in SIGNS:
                self.used[quantity.at - 1] = True
        identifiers: Counter[str] = Counter()
        for place, token in enumerate(self.tokens):
            if token.kind == "identifier" and not self.used[place]:
                # ls -R is not ls -r
                identifiers[token.text if token.text.startswith("-") else token.norm] += 1
        quantifiers = self._labels(words.quantifiers, consume=True)
        formats = frozenset(self._labels(words.formats))
        lengths = frozenset(self._labels(words.lengths))
        units = self._units(joined)
        open_words = [norm for place, norm in enumerate(self.norms) if not self.used[place]]
        everything = set(self.norms)
        return Analysis(
            text=self.text,
            language=words.language,
            plain=self.plain,
            units=units,
            frames=tuple(dict.fromkeys(self.frames)),
            quantities=Counter(quantity.canonical for quantity in free),
            identifiers=identifiers,
            negations=self._negations(),
            exclusions=Counter(norm for norm in open_words if norm in words.exclusion),
            quantifiers=quantifiers,
            formats=formats,
            lengths=lengths,
            languages=Counter(norm for norm in self.norms if norm in words.languages),
            persons=frozenset(
                name for name in ("first", "second", "third", "self") if not words.persons[name].isdisjoint(open_words)
            ),
            genders=frozenset(
                name
                for name in ("he", "she", "plural")
                if not words.persons.get(name, frozenset()).isdisjoint(open_words)
            ),
            modality=modality,
            tense=self._tense(everything),
            directions=Counter(norm for norm in open_words if norm in words.directional),
            functions=frozenset(norm for norm in open_words if norm in words.stopwords),
            expression=self._expression(),
            sequence=tuple(quantity.canonical for quantity in free),
            bounds=Counter(
                f"{side} {quantity.canonical}" for quantity in free if (side := self._bound(quantity.at)) is not None
            ),
            ending=self._ending(),
        )

    def _bound(self, at: int) -> str | None:
        for place in range(at - 1, max(at - 4, -1), -1):
            side = _BOUNDS.get(self.norms[place])
            if side is not None:
                return side
            if self.tokens[place].kind == "word" and self.norms[place] not in _BEFORE_A_NUMBER:
                return None
        return None

    def _ending(self) -> str:
        last = next((t.norm for t in reversed(self.tokens) if t.kind != "mark"), "")
        return last if self.words.language == "en" and last in _STRANDED else ""

    def _expression(self) -> tuple[str, ...]:
        if not any(token.kind == "mark" and token.norm in _OPERATORS for token in self.tokens):
            return ()
        return tuple(
            token.norm
            for place, token in enumerate(self.tokens)
            if token.kind == "number"
            or token.norm in _OPERATORS
            or token.norm in ("-", "/")
            or (len(token.norm) == 1 and token.kind == "word")
            or self._groups(place)
        )

    def _groups(self, place: int) -> bool:
        """A parenthesis around a part of an expression, not around words."""
        beside = {"(": place + 1, ")": place - 1}.get(self.norms[place], len(self.tokens))
        if not 0 <= beside < len(self.tokens):
            return False
        token = self.tokens[beside]
        return token.kind == "number" or len(token.norm) == 1

    def _clauses(self) -> list[int]:
        starts = [0]
        for place, token in enumerate(self.tokens[:-1]):
            if token.kind == "mark" and token.norm in _CLAUSE_MARKS:
                starts.append(place + 1)
        return starts

    def _drop(self) -> None:
        dropped: list[int] = []
        for start in self._clauses():
            at = start
            while (found := self.words.drop.match(self.norms, at)) is not None:
                dropped.extend(range(at, at + found[0]))
                at += found[0]
                while at < len(self.tokens) and self.tokens[at].kind == "mark":
                    at += 1
        end = len(self.norms)
        while end and self.tokens[end - 1].kind == "mark":
            end -= 1
        for length in range(min(6, end), 0, -1):
            tail = tuple(self.norms[end - length : end])
            if self.words.drop.get(tail):
                dropped.extend(range(end - length, end))
                break
        left = [
            place
            for place, token in enumerate(self.tokens)
            if token.kind != "mark" and place not in set(dropped) and token.norm not in self.words.stopwords
        ]
        if left:
            for place in dropped:
                self.used[place] = True

    def _frame(self) -> None:
        for start in self._clauses():
            at = start
            while at < len(self.tokens) and self.used[at]:
                at += 1
            last = self._governed(at)
            if last is not None:
                self.used[at] = True
                at += 1
            while (found := self.words.frames.match(self.norms, at)) is not None:
                length, name = found
                if at + length >= len(self.tokens) and last is None and start == 0:
                    break  # the whole text: nothing would be left to compare
                for place in range(at, at + length):
                    self.used[place] = True
                # how long can I is how long, how do I is it is howto: the first that asks for something in particular
                last = name if last in (None, "define", "yesno") or name not in ("define", "yesno") else last
                at += length
            if last is not None:
                self.frames.append(last)
        if not self.frames:
            for at in range(1, len(self.tokens)):
                if self.used[at]:
                    continue
                found = self.words.frames.match(self.norms, at)
                if found is not None and found[0] >= 3 and found[1] != "define":
                    for place in range(at, at + found[0]):
                        self.used[place] = True
                    self.frames.append(found[1])
                    break

    def _governed(self, at: int) -> str | None:
        """By when, until when, from how many: the frame after a preposition; of whom is not who."""
        if at + 2 >= len(self.norms) or self.norms[at] not in _BEFORE_A_FRAME:
            return None
        if self.words.frames.match(self.norms, at) is not None:
            return None
        found = self.words.frames.match(self.norms, at + 1)
        if found is None or found[1] not in _GOVERNED:
            return None
        return "whom" if found[1] == "who" else str(found[1])

    def _labels(self, table: PhraseTable, consume: bool = False) -> Counter[str]:
        found: Counter[str] = Counter()
        at = 0
        while at < len(self.norms):
            match = None if self.used[at] else table.match(self.norms, at) or table.match(self.stems, at)
            if match is None or self._no_quantifier(at, match[1]):
                at += 1
                continue
            found[match[1]] += 1
            if consume and match[1] not in _COMPARED_AS_WORDS:
                for place in range(at, at + match[0]):
                    self.used[place] = True
            at += match[0]
        return found

    def _no_quantifier(self, at: int, name: str) -> bool:
        """How long does it last; what happens next; from here to there."""
        norm, language = self.norms[at], self.words.language
        if language == "en" and name in ("last", "next"):
            ends = at + 1 >= len(self.tokens) or self.tokens[at + 1].kind == "mark"
            return (norm == "last" and "howlong" in self.frames) or (norm in ("last", "next") and ends)
        origins = _ORIGINS.get(norm)
        return origins is not None and not origins.isdisjoint(self.norms[:at])

    def _phrases(self) -> dict[int, str]:
        """Place of the first word -> phrase; the words are marked used."""
        found: dict[int, str] = {}
        at = 0
        while at < len(self.stems):
            match = None if self.used[at] else self.words.phrases.match(self.stems, at)
            if match is None or any(self.used[at : at + match[0]]):
                at += 1
                continue
            found[at] = match[1]
            for place in range(at, at + match[0]):
                self.used[place] = True
            at += match[0]
        if self.words.language == "en":
            self._separated(found)
        return found

    def _separated(self, found: dict[int, str]) -> None:
        for at, norm in enumerate(self.stems):
            if self.used[at] or norm not in _SEPARABLE:
                continue
            for place in range(at + 1, min(at + _PARTICLE_REACH + 1, len(self.norms))):
                if self.used[place] and self.tokens[place].kind == "mark":
                    break
                if self.norms[place] not in _PARTICLES or self.used[place]:
                    continue
                phrase = self.words.phrases.get((norm, self.stems[place]))
                if phrase is not None:
                    found[at] = phrase
                    self.used[at] = self.used[place] = True
                    break

    def _negations(self) -> int:
        count = 0
        for place, norm in enumerate(self.norms):
            if self.used[place] or not (norm in self.words.negation or (norm == "n" and self.words.language == "fr")):
                continue
            if norm in _SECOND_HALVES and any(self.norms[i] in ("ne", "n") for i in range(max(0, place - 4), place)):
                continue
            count += 1
        return count

    def _tense(self, everything: set[str]) -> str:
        past = not self.words.tense["past"].isdisjoint(everything)
        future = not self.words.tense["future"].isdisjoint(everything)
        if past:
            return "past"
        if future:
            return "future"
        present = everything & {"is", "are", "does", "do", "sao", "es", "son", "est", "sont", "ist", "sind"}
        return "present" if present else ""

    def _infinitive(self, place: int) -> bool:
        """English "to" before a verb is no direction."""
        return self.norms[place] == "to" and place > 0 and self.norms[place - 1] in _BEFORE_INFINITIVE

    def _units(self, joined: dict[int, str]) -> tuple[Unit, ...]:
        words = self.words
        names = [t for t in self.tokens if t.kind == "word" and not t.starts and len(t.text) > 1]
        capitals = sum(1 for t in names if t.text[:1].isupper())
        shouting = capitals > 3 and capitals > 0.6 * len(names)
        shouting = shouting or not any(c.islower() for c in self.text)
        said = words.language != "de" and not shouting
        units: list[Unit] = []
        role = ""
        linked_next = False
        for place, token in enumerate(self.tokens):
            phrase = joined.get(place)
            norm = self.norms[place]
            if phrase is None and self.used[place]:
                if norm == ",":
                    role = role and ""
                continue
            if phrase is None and token.kind == "mark":
                continue
            if norm == "as" and place + 1 < len(self.norms) and self.norms[place + 1] in ("a", "an"):
                role = "as"
            acronym = said and len(token.text) > 1 and token.text.isupper() and token.kind == "word"
            if (
                phrase is None
                and not acronym
                and (norm in words.negation or norm in words.stopwords or norm in words.directional)
            ):
                if norm in words.directional and not self._infinitive(place):
                    role = _SAME_ROLE.get(norm, norm)
                if norm in ("and", "or", "versus", "e", "ou", "y", "o", "et", "und", "oder"):
                    linked_next = True
                    if units:
                        units[-1] = replace(units[-1], linked=True)
                continue
            if token.kind == "identifier":
                role = ""
                continue
            key = phrase or self.stems[place]
            entity = (
                phrase is None
                and said
                and token.text[:1].isupper()
                and (not token.starts or (len(token.text) > 1 and token.text.isupper()))
            )
            rare = (
                phrase is None
                and words.language == "en"
                and len(norm) > 2
                and norm not in words.known
                and key not in words.groups
                and key not in words.contrasts
                and key not in frequent_words()
                and key + "e" not in frequent_words()
            )
            if phrase is not None and phrase.partition("_")[0] in words.directional:
                role = phrase.partition("_")[0]
            light = (
                role not in _ADJUNCT and phrase is None and not entity and (norm in words.light or key in words.light)
            )
            units.append(Unit(norm if phrase is None else phrase, key, place, role, light, entity, rare, linked_next))
            role, linked_next = "", False
        return tuple(units)
