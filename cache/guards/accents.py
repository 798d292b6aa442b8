"""Words that differ in an accent: forgiven where it was left out in typing, not where it makes another word."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.lexicon import Lexicon, written_words
from cache.language.normalise import fold

_MINIMAL_TEXT = {
    "en": "rosé lamé exposé piqué",
    "pt": "avó avô coco cocô bebê sábia sabiá secretária público pública fábrica médica médico música músico país "
    "babá camelô forró maçã fã lã romã pára pôr número hábito prática crítica polícia análise dúvida cópia "
    "história vovó calça porém sítio vário próspero trânsito intérprete revólver sóbria mágoa cágado pêlo pólo pélvis "
    "está contínuo célebre válido líquido amém",
    "es": "papá mamá año años bebé sábana público pública médico médica pérdida célebre hábito peña caña moño uña cuña "
    "campaña ordeñar maña doña baño daño soñar sueño montaña peñas cañas moños uñas número práctica crítica cálculo "
    "término depósito ejército límite título crédito tráfico catálogo diálogo inglés ingles límites títulos "
    "continúo sabía secretaría policía hacía río tío",
    "fr": "pécheur pêcheur côte côté tâche pêche péché mûr sûr jeûne forêt rôti marché congrès salé maïs hâle bâiller "
    "gène gêne pâté pâte crû cru élève élevé matière bébé tâches côtes côtés pêcheurs pécheurs marchés mûre "
    "interné curé pavé fossé dé blé clé thé tué règle réglé mémé chasse châsse boîte boité haler hâler "
    "colère coléré arrêt aréte grève grevé",
    "de": "schön drücken stück hölle höhle bär bären mütter brüder väter töchter vögel äpfel küchen gärten "
    "läden böden öfen mäntel häfen schüler schwül fällen wäre wären hätte hätten könnte könnten müsste müssten "
    "dürfte dürften möchte möchten würde würden tränen märkte krähe rücken",
}
_STEMS = {
    "de": ("zähl", "förder", "drück", "lös", "töt", "schätz", "fäll", "kräft", "hör", "läg", "führ"),
}
"""Beginnings of words that are words without their accent, too: zählen and zahlen."""


def accents(pair: Comparison) -> str | None:
    words = pair.words
    if words is None or pair.a.spelt == pair.b.spelt:
        return None
    differing = _differing(pair.a, pair.b)
    if not differing:
        return None
    for norm, mine, other in differing:
        if _two_words(mine, other, words.language) and not _years(norm, pair):
            return f"{mine} against {other}"
    bare = any(all(word.isascii() for word in text.spelt) for text in (pair.a, pair.b))
    if bare or words.language == "en":
        return None
    for norm, mine, other in differing:
        if not _left_out(norm, mine, other, pair, words):
            return f"{mine} against {other}"
    return None


def _differing(a: Analysis, b: Analysis) -> list[tuple[str, str, str]]:
    """(without accents, as written in A, in B) of words that both have, each in spellings that the other lacks."""
    forms_a, forms_b = _forms(a), _forms(b)
    out = []
    for norm in forms_a.keys() & forms_b.keys():
        mine, other = forms_a[norm], forms_b[norm]
        if mine != other:
            out.append((norm, min(mine - other or mine), min(other - mine or other)))
    return sorted(out)


def _forms(text: Analysis) -> dict[str, set[str]]:
    forms: dict[str, set[str]] = defaultdict(set)
    for norm, spelt in zip(text.plain, text.spelt, strict=False):
        forms[norm].add(spelt)
    return forms


@lru_cache(maxsize=8)
def _minimal(language: str) -> frozenset[str]:
    return frozenset(_MINIMAL_TEXT.get(language, "").split())


def _two_words(mine: str, other: str, language: str) -> bool:
    """Both are words, of different meaning."""
    if not mine.isascii() and not other.isascii():
        return True
    accented = other if mine.isascii() else mine
    if accented in _minimal(language) or (language in ("es", "pt", "fr") and accented[:-1] in _minimal(language)):
        return True
    return any(stem in accented for stem in _STEMS.get(language, ()))


def _years(norm: str, pair: Comparison) -> bool:
    """Cuantos anos tiene: years, typed without the tilde."""
    return norm in ("ano", "anos") and any(
        "cuantos" in text.plain or any(quantity[:1].isdigit() for quantity in text.quantities)
        for text in (pair.a, pair.b)
    ) and any(text.spelt == text.plain for text in (pair.a, pair.b))  # fmt: skip


def _left_out(norm: str, mine: str, other: str, pair: Comparison, words: Lexicon) -> bool:
    """The accent is missing on one side, and the bare word is none, or one of the small words."""
    if not (mine.isascii() or other.isascii()):
        return False
    if norm in words.stopwords or norm in words.directional:
        return True
    bare, accented = (mine, other) if mine.isascii() else (other, mine)
    listed = written_words(words.language)
    if accented in listed and bare not in listed:
        return True
    entities = {unit.norm for text in (pair.a, pair.b) for unit in text.units if unit.entity}
    return norm in entities and fold(accented) == bare
