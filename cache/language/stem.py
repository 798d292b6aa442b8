"""Inflection removed, crudely and per language: enough to see that two forms are one word."""

from __future__ import annotations

from functools import lru_cache

from cache.language.normalise import fold

_IRREGULAR_EN = {
    form: base
    for base, forms in {
        "man": "men", "woman": "women", "child": "children", "foot": "feet", "tooth": "teeth", "mouse": "mice",
        "goose": "geese", "person": "persons", "life": "lives", "knife": "knives", "wife": "wives", "leaf": "leaves",
        "half": "halves", "buy": "bought", "sell": "sold", "send": "sent", "spend": "spent", "lend": "lent",
        "build": "built", "write": "wrote written", "pay": "paid", "lose": "lost", "find": "found", "make": "made",
        "take": "took taken", "get": "got gotten", "break": "broke broken", "choose": "chose chosen",
        "freeze": "froze frozen", "speak": "spoke spoken", "steal": "stole stolen", "drive": "drove driven",
        "eat": "ate eaten", "drink": "drank drunk", "run": "ran", "grow": "grew grown", "know": "knew known",
        "keep": "kept", "meet": "met", "ride": "rode ridden", "say": "said", "see": "saw seen", "show": "shown",
        "sleep": "slept", "sing": "sang sung", "swim": "swam swum", "teach": "taught", "think": "thought",
        "tell": "told", "understand": "understood", "wear": "wore worn", "win": "won", "begin": "began begun",
        "die": "dying died", "lie": "lying", "tie": "tying", "fly": "flew flown", "hold": "held", "hide": "hid hidden",
        "forget": "forgot forgotten", "give": "gave given", "go": "went gone", "come": "came", "become": "became",
        "bring": "brought", "catch": "caught", "fall": "fell fallen", "feel": "felt", "fight": "fought",
        "hear": "heard",
        "rise": "rose risen", "sit": "sat", "stand": "stood", "throw": "threw thrown", "wake": "woke woken",
        "draw": "drew drawn", "shake": "shook shaken", "bite": "bit bitten", "blow": "blew blown", "dig": "dug",
        "feed": "fed", "lead": "led", "light": "lit", "shoot": "shot", "shrink": "shrank shrunk", "stick": "stuck",
        "swell": "swollen", "tear": "tore torn", "criterion": "criteria", "phenomenon": "phenomena",
        "analysis": "analyses", "crisis": "crises", "datum": "data", "index": "indices indexes",
    }.items()
    for form in forms.split()
}  # fmt: skip

_ENDINGS = {
    "pt": (
        "ávamos amentos imentos ações amento imento adores adoras ador adora ação ções ção ando endo "
        "indo aram eram iram ados adas idos idas ado ada ido ida aria eria iria avam iam ava ou ei eu "
        "iu ar er ir am em as os es is a o e s"
    ),
    "es": (
        "aciones amientos imientos amiento imiento adores adoras ación ciones ador adora iendo yendo "
        "ando aron ieron ados adas idos idas ado ada ido ida aría ería iría aban ían aba ía ó é ar er "
        "ir an en as os es a o e s"
    ),
    "fr": (
        "issement issements issons issent ations ements ement ation eront aient eurs euse eur ées ée "
        "és er ir re ais ait ant ent ons ez es é e s x"
    ),
    "de": "ungen ung est ern em en er es st e n s t",
}  # fmt: skip
_SUFFIXES = {
    language: sorted({fold(suffix) for suffix in text.split()}, key=len, reverse=True)
    for language, text in _ENDINGS.items()
}
_LEAST_STEM = 3

_DERIVATIONS_TEXT = (
    "ion ation ition ment er or ance ence ant ent able ible ly al ic ive ing ity e ed y cao coes acao "
    "mento dor dora ador adora idade mente vel agem ura encia ancia cion ciones acion miento idad dad ez "
    "eza teur trice age eur euse ement ung lich keit heit in schaft abl ibl iv anc enc ur ag at tur ci "
)
DERIVATIONS = frozenset(_DERIVATIONS_TEXT.split())
"""Endings within a word family: cancel, cancellation. Never ``ee``: it turns the role round."""


@lru_cache(maxsize=65536)
def stem(word: str, language: str) -> str:
    """Stem of a folded word."""
    if language == "en":
        return _stem_english(word)
    suffixes = _SUFFIXES.get(language)
    if suffixes is None or len(word) <= _LEAST_STEM:
        return word
    for suffix in suffixes:
        if word.endswith(suffix) and len(word) - len(suffix) >= _LEAST_STEM:
            return word[: -len(suffix)]
    return word


def _stem_english(word: str) -> str:
    word = word.removesuffix("'s").removesuffix("'")
    word = _IRREGULAR_EN.get(word, word)
    if len(word) <= _LEAST_STEM:
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "xes", "zes", "ches", "shes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        base = word.removesuffix(suffix)
        if base != word and len(base) >= _LEAST_STEM and any(c in "aeiouy" for c in base):
            word = base
            break
    if word.endswith("e") and len(word) > _LEAST_STEM:
        word = word[:-1]
    if word.endswith("y") and len(word) > _LEAST_STEM:
        word = word[:-1] + "i"
    if len(word) > _LEAST_STEM and word[-1] == word[-2] and not (len(word) == 4 and word[-1] in "ls"):
        # stopp, from stopping, is stop; but fill is not file
        word = word[:-1]
    return word


def related(a: str, b: str, stem_a: str, stem_b: str) -> bool:
    """One word family: the same beginning of five letters or more, and known endings."""
    if stem_a == stem_b:
        return True
    short, long = sorted((stem_a, stem_b), key=len)
    common = 0
    for left, right in zip(short, long, strict=False):
        if left != right:
            break
        common += 1
    rest_short, rest_long = short[common:], long[common:]
    if common < 5 and not (common >= 3 and not rest_short and rest_long in ("ment", "mento", "miento")):
        return False
    if len(rest_short) > 2 and rest_short not in DERIVATIONS:
        return False
    ending = rest_long.removesuffix("s")
    return (ending in DERIVATIONS or ending[1:] in DERIVATIONS) and len(rest_short) <= 4
