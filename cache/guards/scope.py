"""How much is asked about: quantifiers, order, superlatives, must against can, and conditions added on one side."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.lexicon import Lexicon

_SOFT = frozenset({"any", "some", "more", "less", "enough", "too", "per", "total", "either", "both", "most",
                   "best", "all",
                   "daily", "weekly", "monthly", "yearly"})  # fmt: skip
"""Quantifiers that a paraphrase may add or leave out: the score weighs them."""
_ORDINARY = frozenset({"attribute", "unit", "document", "file", "position", "ordering", "room", "payment",
                       "body", "material",
                       "transport", "profession", "subject", "vendor", "os_action", "cooking", "device",
                       "structure"})  # fmt: skip
"""Classes whose members are also ordinary nouns: one alone on one side is left to the score."""

_CONDITIONS_TEXT = (
    "at on with during within by in for across em com durante para en con por dans sur avec pendant pour chez "
    "sous am auf bei mit für fur "
)
_OF = frozenset({"of", "de", "von"})
_CONDITIONS = frozenset(_CONDITIONS_TEXT.split())
_ORDINARY_PLACES_TEXT = (
    "account profile order app website site page system service store company project computer device "
    "document file settings conta perfil pedido aplicativo pagina sistema servico loja empresa cuenta "
    "aplicacion sitio tienda compte application boutique konto webseite seite laden shop imovel inmueble bien "
)
_ORDINARY_PLACES = frozenset(_ORDINARY_PLACES_TEXT.split())
"""My account and my order are often named in one question and understood in the other."""


def scope(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    aligned = {name for match in pair.alignment.matches for name in (match.a.norm, match.b.norm)}
    hard_a, hard_b = _hard(pair.a, aligned), _hard(pair.b, aligned)
    if hard_a != hard_b:
        return f"{_list(hard_a)} against {_list(hard_b)}"
    universal = {"all", "some", "any", "most", "both"}
    soft_a, soft_b = universal & set(pair.a.quantifiers), universal & set(pair.b.quantifiers)
    if soft_a and soft_b and not soft_a & soft_b:
        return f"{_list(soft_a)} against {_list(soft_b)}"
    if ("all" in pair.a.quantifiers) != ("all" in pair.b.quantifiers) and _one_of_them(pair):
        return "all against one"
    order = _moment(pair.a) ^ _moment(pair.b)
    if order:
        return f"{min(order)} on one side"
    periods = {"daily", "weekly", "monthly", "yearly"}
    period_a, period_b = periods & set(pair.a.quantifiers), periods & set(pair.b.quantifiers)
    if period_a and period_b and period_a != period_b:
        return f"{_list(period_a)} against {_list(period_b)}"
    if (period_a and not period_b and not pair.left_b) or (period_b and not period_a and not pair.left_a):
        return f"{_list(period_a | period_b)} on one side"
    for mine, other in ((pair.a, pair.b), (pair.b, pair.a)):
        for strong in ("must", "should"):
            if strong in mine.modality and not other.modality and "yesno" in other.frames:
                return f"{strong} against can"
    if pair.a.modality and pair.b.modality and not pair.a.modality & pair.b.modality:
        return f"{_list(set(pair.a.modality))} against {_list(set(pair.b.modality))}"
    often = _how_often(pair)
    if often is not None:
        return often
    if _within_itself(pair.a) != _within_itself(pair.b):
        return "one within another on one side"
    return _added(pair, words)


_FREQUENCY = {
    "ever": frozenset({"ever", "jemals", "jamais"}),
    "always": frozenset({"always", "sempre", "siempre", "toujours", "immer"}),
    "sometimes": frozenset({"sometimes", "occasionally", "vezes", "veces", "parfois", "quelquefois", "manchmal"}),
    "usually": frozenset({"usually", "normally", "generally", "normalmente", "geralmente", "generalmente",
                          "normalement", "normalerweise", "gewohnlich", "meistens"}),
    "rarely": frozenset({"rarely", "seldom", "hardly", "raramente", "rarement", "selten"}),
}  # fmt: skip


def _how_often(pair: Comparison) -> str | None:
    """Is it ever right, is it always right; always on one side changes an answer of yes or no."""
    a, b = _frequencies(pair.a), _frequencies(pair.b)
    if a and b and a != b:
        return f"{_list(a)} against {_list(b)}"
    if "always" in a ^ b and any("yesno" in text.frames for text in (pair.a, pair.b)):
        return "always on one side"
    return None


def _frequencies(text: Analysis) -> set[str]:
    return {name for name, signs in _FREQUENCY.items() if not signs.isdisjoint(text.plain)}


def _within_itself(text: Analysis) -> bool:
    """A list of lists, a copy of a copy."""
    keys = [unit.key for unit in text.units]
    return any(unit.role in _OF and unit.key in keys[:place] for place, unit in enumerate(text.units))


def _added(pair: Comparison, words: Lexicon) -> str | None:
    """A condition on one side where the other has nothing of its own."""
    for left, others, other in ((pair.left_a, pair.left_b, pair.b), (pair.left_b, pair.left_a, pair.a)):
        if others:
            continue
        for unit in left:
            if unit.role in _CONDITIONS and unit.role not in other.directions and unit.norm not in _ORDINARY_PLACES:
                return f"{unit.role} {unit.norm} on one side"
            if unit.key in words.narrowing or (unit.role in _OF and unit.norm not in _ORDINARY_PLACES):
                return f"{unit.role} {unit.norm} on one side".lstrip()
            classes = words.contrasts.get(unit.key, frozenset()) - _ORDINARY
            if classes or unit.entity or (unit.rare and "_" not in unit.key):
                return f"{unit.norm} on one side"
    return None


def _one_of_them(pair: Comparison) -> bool:
    """Restart all deployments, restart a deployment; delete all my messages, delete my message."""
    every, one = (pair.a, pair.b) if "all" in pair.a.quantifiers else (pair.b, pair.a)
    articles = _ARTICLES.get(one.language, frozenset())
    if one.functions & articles and not every.functions & articles:
        return True
    for match in pair.alignment.matches:
        mine, other = (match.a, match.b) if every is pair.a else (match.b, match.a)
        if mine.norm != other.norm and mine.key == other.key and mine.norm in (other.norm + "s", other.norm + "es"):
            return True
    return False


_ARTICLES = {
    "en": frozenset({"a", "an"}),
    "pt": frozenset({"um", "uma"}),
    "es": frozenset({"un", "una"}),
    "fr": frozenset({"un", "une"}),
    "de": frozenset({"ein", "eine", "einen", "einem", "einer"}),
}
_MOMENTS = {
    "after": frozenset({"after", "following", "once", "post", "since", "depois", "apos", "despues", "tras", "apres",
                        "nachdem"}),
    "before": frozenset({"before", "prior", "until", "antes", "avant", "bevor", "vor"}),
}  # fmt: skip


def _moment(text: Analysis) -> frozenset[str]:
    """After or before something; "nach" is also a direction, so German after is left to the score."""
    return frozenset(name for name, signs in _MOMENTS.items() if not signs.isdisjoint(text.plain))


def _hard(text: Analysis, aligned: set[str]) -> set[str]:
    return {name for name in text.quantifiers if name not in _SOFT and name not in aligned}


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
