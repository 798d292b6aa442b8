"""What the question word stands for: who does it, or to whom it is done. What eats owls is not what do owls eat."""

from __future__ import annotations

from dataclasses import dataclass

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.lexicon import Lexicon

SUBJECT, OBJECT = "subject", "object"
_MOST_OF_A_PHRASE = 6
"""Words between a question word and its auxiliary: which kind of food do."""


@dataclass(frozen=True, slots=True)
class Asked:
    role: str
    """``subject``, ``object`` or empty."""
    rest: tuple[str, ...]
    """Content words after the question word, and after the auxiliary that follows it."""
    noun: tuple[str, ...] = ()
    """Content words between the two: which team did."""


_NOTHING = Asked("", ())
_DO = frozenset({"do", "does", "did"})
_BE = frozenset({"is", "are", "was", "were", "been", "being", "be"})
_MODAL = frozenset({"can", "could", "will", "would", "shall", "should", "may", "might", "must"})
_HAVE = frozenset({"has", "have", "had"})
_WITH_A_NOUN = frozenset({"which", "what", "whose", "many", "much"})
_DETERMINERS_TEXT = "a an the my your his her our their its this that these those i you he she we they it"
_DETERMINERS = frozenset(_DETERMINERS_TEXT.split())
_STRANDED = frozenset({"than", "of", "to", "by", "with", "from", "in", "on", "for", "about", "at"})
_PREDICATES_TEXT = "afraid part married related equal similar composed member jealous proud fond scared allergic"
_PREDICATES = frozenset(_PREDICATES_TEXT.split())
_MEANS = frozenset({"mean", "happen", "cost", "mak"})
"""What means X is what learners write for what does X mean."""


def asked(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    read = _READERS.get(words.language)
    if read is None:
        return None
    a, b = read(pair.a, words), read(pair.b, words)
    if a.role and b.role and a.role != b.role and _same_parties(pair, a, b, words):
        return f"asks for the {a.role} against the {b.role}"
    return _number_of_the_verb(pair, words)


def _same_parties(pair: Comparison, a: Asked, b: Asked, words: Lexicon) -> bool:
    """One verb on both sides, before its noun in the one and after it in the other: eats owls, do owls eat."""
    if words.language != "en":
        shared = [stem for stem in a.rest if any(_same(stem, other, words) for other in b.rest)]
        return len(shared) >= 2 and not _passive(pair)
    subject, other = (a, b) if a.role == SUBJECT else (b, a)
    done = [stem for stem in subject.rest if not any(_same(stem, noun, words) for noun in other.noun)]
    places = [
        place
        for stem in done
        if (place := next((at for at, rest in enumerate(other.rest) if _same(stem, rest, words)), None)) is not None
    ]
    return len(places) >= 2 and places[0] > places[1]


def _same(a: str, b: str, words: Lexicon) -> bool:
    return a == b or words.synonyms(a, b)


_PASSIVE = frozenset({"wurde", "wurden", "werden", "wird", "foi", "foram", "fue", "fueron", "fut", "furent", "par"})


def _passive(pair: Comparison) -> bool:
    return any(not _PASSIVE.isdisjoint(text.plain) for text in (pair.a, pair.b))


def _contents(text: tuple[str, ...], words: Lexicon) -> tuple[str, ...]:
    return tuple(words.stem(norm) for norm in text if norm not in words.stopwords and norm not in words.directional)


def _english(text: Analysis, words: Lexicon) -> Asked:
    plain = text.plain
    if len(plain) < 3:
        return _NOTHING
    if plain[0] in ("how", "to", "by", "of", "with", "for", "from") and plain[1] not in ("many", "much"):
        return _NOTHING
    wh = 1 if plain[0] == "how" else 0
    if plain[wh] not in ("who", "whom", *_WITH_A_NOUN):
        return _NOTHING
    auxiliary = next((at for at in range(wh + 1, min(wh + _MOST_OF_A_PHRASE, len(plain))) if plain[at] in _DO), 0)
    if auxiliary:
        rest = _contents(plain[auxiliary + 1 :], words)
        noun = _contents(plain[wh + 1 : auxiliary], words)
        return Asked(OBJECT, rest, noun) if rest and _MEANS.isdisjoint(rest) else _NOTHING
    following = plain[wh + 1]
    if following in _BE:
        return _predicate(plain, wh, words)
    if following in _MODAL:
        role = OBJECT if plain[wh + 2] in _DETERMINERS else SUBJECT
        return Asked(role, _contents(plain[wh + 2 :], words))
    if following in _HAVE or not (_BE | _HAVE | _MODAL).isdisjoint(plain[: wh + _MOST_OF_A_PHRASE]):
        return _NOTHING
    if following in _DETERMINERS or following in words.directional:
        return _NOTHING
    rest = _contents(plain[wh + 1 :], words)
    return Asked(SUBJECT, rest) if rest and _MEANS.isdisjoint(rest[:1]) else _NOTHING


def _predicate(plain: tuple[str, ...], wh: int, words: Lexicon) -> Asked:
    """Who is taller than X, who is X taller than; with the preposition last the other one is meant."""
    rest = _contents(plain[wh + 2 :], words)
    if plain[-1] in _STRANDED and plain[-1] != "by":
        if plain[-1] == "than" or not _PREDICATES.isdisjoint(plain):
            return Asked(OBJECT, rest)
        return _NOTHING
    if "than" in plain or plain[wh + 2] in _PREDICATES:
        return Asked(SUBJECT, rest)
    return _NOTHING


_GERMAN = {"wer": SUBJECT, "wen": OBJECT, "wem": OBJECT, "welchen": OBJECT, "welchem": OBJECT}
_NOMINATIVE = frozenset({"ein", "der"})
_ACCUSATIVE = frozenset({"einen", "den"})


def _german(text: Analysis, words: Lexicon) -> Asked:
    if not text.plain:
        return _NOTHING
    first, rest = text.plain[0], text.plain[1:]
    if rest[:1] in (("ist",), ("sind",), ("war",), ("waren",)):
        return _NOTHING
    role = _GERMAN.get(first, "")
    if first in ("was", "welche", "welches", "welcher"):
        if not _NOMINATIVE.isdisjoint(rest):
            role = OBJECT
        elif not _ACCUSATIVE.isdisjoint(rest):
            role = SUBJECT
    return Asked(role, _contents(rest, words))


_NOT_DONE_TO = frozenset(
    {"le", "les", "hora", "horas", "edad", "velocidad", "altura", "distancia", "temperatura", "precio"}
)
"""Whose turn it is, and at what time."""


def _spanish(text: Analysis, words: Lexicon) -> Asked:
    plain = text.plain
    if len(plain) < 3:
        return _NOTHING
    who = ("quien", "quienes")
    if plain[0] == "a" and plain[1] in (*who, "que", "cual", "cuales") and _NOT_DONE_TO.isdisjoint(plain):
        return Asked(OBJECT, _contents(plain[2:], words))
    if plain[0] in who and plain[1] not in ("es", "son", "era", "fue"):
        return Asked(SUBJECT, _contents(plain[1:], words))
    if plain[0] in ("que", "cual") and not {"a", "al"}.isdisjoint(plain[2:]):
        return Asked(SUBJECT, _contents(plain[1:], words))
    return _NOTHING


def _portuguese(text: Analysis, words: Lexicon) -> Asked:
    """Quem matou Aquiles, quem Aquiles matou: told by what the verb's ending and a capital show."""
    plain = text.plain
    if len(plain) < 3:
        return _NOTHING
    if plain[:2] == ("a", "quem"):
        return Asked(OBJECT, _contents(plain[2:], words))
    first = 1 if plain[0] == "quem" else 2 if plain[0] in ("que", "qual", "quais", "quantos", "quantas") else 0
    if not first or not {"e", "sao", "era", "eram", "foi", "foram"}.isdisjoint(plain[1 : first + 1]):
        return _NOTHING
    following = {unit.norm for unit in text.units if unit.entity}
    noun = plain[first] in following or plain[first] in ("o", "a", "os", "as", "um", "uma")
    if plain[0] != "quem" and not noun:
        return Asked(SUBJECT, _contents(plain[first:], words))
    return Asked(OBJECT if noun else SUBJECT, _contents(plain[first:], words))


_INVERTED = ("il", "elle", "ils", "elles", "on")
_FRENCH_BE = frozenset({"est", "sont", "etait", "etaient", "fut"})


def _french(text: Analysis, words: Lexicon) -> Asked:
    plain = tuple(part for norm in text.plain for part in norm.replace("'", "-").split("-"))
    if len(plain) < 3 or "se" in plain or "s" in plain[:4]:
        return _NOTHING
    start, rest = plain[0], plain[1:]
    for words_of, role in (
        (("qu", "est", "ce", "qui"), SUBJECT),
        (("qui", "est", "ce", "qui"), SUBJECT),
        (("qu", "est", "ce", "que"), OBJECT),
        (("qui", "est", "ce", "que"), OBJECT),
    ):
        if plain[:4] == words_of:
            return Asked(role, _contents(plain[4:], words))
    inverted = any(pronoun in rest[1:] for pronoun in _INVERTED)
    if start == "qui" and rest[0] not in _FRENCH_BE:
        return Asked(OBJECT if inverted else SUBJECT, _contents(rest, words))
    if start == "que" and rest[0] not in _FRENCH_BE:
        return Asked(OBJECT, _contents(rest, words))
    if start in ("quel", "quelle", "quels", "quelles") and rest[0] not in _FRENCH_BE:
        return Asked(OBJECT if inverted else SUBJECT, _contents(rest, words))
    return _NOTHING


_READERS = {"en": _english, "de": _german, "es": _spanish, "pt": _portuguese, "fr": _french}
_PLURALS = {"pt": ("am", "em"), "es": ("an", "en"), "de": ("en", "n"), "fr": ("ent",)}
_WHAT = {"pt": ("o", "que"), "es": ("que",), "de": ("was",), "fr": ("que",)}


def _number_of_the_verb(pair: Comparison, words: Lexicon) -> str | None:
    """O que come corujas, o que comem corujas: the verb goes with the noun, or with what is asked for."""
    what = _WHAT.get(words.language)
    if what is None or any(text.plain[: len(what)] != what for text in (pair.a, pair.b)):
        return None
    a, b = set(pair.a.plain), set(pair.b.plain)
    only_a, only_b = a - b - words.stopwords, b - a - words.stopwords
    if len(only_a) != 1 or len(only_b) != 1:
        return None
    short, long = sorted((only_a.pop(), only_b.pop()), key=len)
    if any(_singular(long, ending, short) for ending in _PLURALS[words.language]) and len(a & b) > len(what):
        return f"{short} against {long}"
    return None


def _singular(plural: str, ending: str, other: str) -> bool:
    stem = plural.removesuffix(ending)
    return stem != plural and len(stem) >= 3 and other in (stem, stem + "a", stem + "e", stem + "t")
