"""Whose: mine, yours, his, hers; and when: was against is."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.lexicon import Lexicon

_GENERIC_FRAMES = frozenset({"howto", "yesno"})
"""How do you reset your phone asks what how do I reset my phone asks."""


def persons(pair: Comparison) -> str | None:
    if pair.words is None:
        return None
    doer = _other_doer(pair, pair.words)
    if doer is not None:
        return f"what {doer} does against what I do"
    if ("else" in pair.a.plain) != ("else" in pair.b.plain) and pair.words.language == "en":
        return "somebody or something else on one side"
    a, b = pair.a.persons, pair.b.persons
    for mine, other in ((a, b), (b, a)):
        if "third" in mine and "third" not in other and other & {"first", "second", "self"} and not mine & other:
            return f"third person against {', '.join(sorted(other))}"
    if {"first", "second"} <= a ^ b and not _generic(pair):
        return "first person against second"
    if pair.a.genders and pair.b.genders and not pair.a.genders & pair.b.genders:
        return f"{', '.join(sorted(pair.a.genders))} against {', '.join(sorted(pair.b.genders))}"
    if {pair.a.tense, pair.b.tense} in ({"past", "present"}, {"past", "future"}) and not _passive(pair):
        return f"{pair.a.tense} against {pair.b.tense}"
    return None


def _generic(pair: Comparison) -> bool:
    return bool(_GENERIC_FRAMES & set(pair.a.frames) and _GENERIC_FRAMES & set(pair.b.frames))


def _passive(pair: Comparison) -> bool:
    """Was painted by X says nothing of when, beside who is the painter."""
    return any(agent in text.directions for text in (pair.a, pair.b) for agent in ("by", "por", "par", "von"))


_AUXILIARY_TEXT = (
    "can may must does do did is are am will should could would has have had pode puede peut darf kann muss "
    "soll deve debe doit tem tiene podem pueden peuvent durfen konnen mussen "
)
_AUXILIARY = frozenset(_AUXILIARY_TEXT.split())
_FIRST_PERSON_FORMS_TEXT = "posso puedo puis devo debo dois tenho tengo podemos pouvons"
_FIRST_PERSON_FORMS = frozenset(_FIRST_PERSON_FORMS_TEXT.split())
"""Verb forms that say the first person by themselves."""
_FIRST_PERSON_TEXT = "i we ich wir je nous eu nos yo nosotros"
_FIRST_PERSON = frozenset(_FIRST_PERSON_TEXT.split())
_BEFORE_THE_DOER_TEXT = (
    "my your our the a an his her their this any meu minha seu sua nosso nossa o um uma mi su nuestro nuestra "
    "el la un una mon ma notre le l une mein meine unser unsere der die das ein eine est ce que "
)
_BEFORE_THE_DOER = frozenset(_BEFORE_THE_DOER_TEXT.split())


def _doer(text: Analysis, parties: frozenset[str]) -> str:
    """Who can, may, must, does: ``I``, a person named right there, or empty where it cannot be told."""
    spoken = [part for norm in text.plain for part in norm.split("-")]
    for place, norm in enumerate(spoken):
        if norm in _FIRST_PERSON_FORMS:
            return "I"
        if norm not in _AUXILIARY:
            continue
        for word in spoken[place + 1 :]:
            if word in _BEFORE_THE_DOER:
                continue
            if word in _FIRST_PERSON:
                return "I"
            if word in parties:
                return word
            break
        before = spoken[place - 1] if place else ""
        if before in parties | _FIRST_PERSON:
            return "I" if before in _FIRST_PERSON else before
    return ""


def _other_doer(pair: Comparison, words: Lexicon) -> str | None:
    """Can my landlord do it without my consent, can I do it without my landlord's: both name the landlord."""
    parties = words.persons["parties"]
    a, b = _doer(pair.a, parties), _doer(pair.b, parties)
    for mine, other, text in ((a, b, pair.b), (b, a, pair.a)):
        if mine in ("", "I") or other != "I" or "remedy" in text.frames:
            continue
        if any(mine in (unit.norm, unit.key) or words.stem(mine) == unit.key for unit in text.units):
            return mine
    return None
