"""Beginnings and endings that make another word, or the opposite, of one stem. One letter apart, and no slip."""

from __future__ import annotations

_INTERNATIONAL = (
    "hypo/hyper hipo/hiper pre/post micro/macro mikro/makro endo/exo mono/poly mono/poli brady/tachy bradi/taqui "
    "im/ex in/ex intra/extra intra/inter"
)
_PREFIXES_TEXT = {
    "en": "in/out up/down over/under im/em fore/after pro/anti",
    "pt": "pre/pos sobre/sub i/e",
    "es": "pre/pos sobre/sub sobre/infra in/e",
    "fr": "sur/sous im/em",
    "de": "an/ab an/aus auf/ab auf/zu ein/aus ein/ab vor/nach ober/unter uber/unter hin/ruck hin/her in/aus be/ent "
    "ver/ent zu/ab innen/aussen",
}
_SHORTEST_REST = 3
_PREFIXES = {
    language: frozenset(
        order
        for pair in f"{_INTERNATIONAL} {text}".split()
        for left, right in [pair.split("/")]
        for order in ((left, right), (right, left))
    )
    for language, text in _PREFIXES_TEXT.items()
}

_ENDINGS = tuple(
    frozenset(text.split())
    for text in (
        "ate ite ide",
        "ato ito eto uro",
        "ate ite ure",
        "at it id",
        "ane ene yne",
        "ano eno ino",
        "an en in",
        "anol anal",
    )
)
"""Of chemical names: nitrate and nitrite, ethane and ethene; in Portuguese and Spanish, French, German alike."""
_SHORTEST_STEM = 3
_CHEMICAL = (
    "nitr sulf sulph chlor clor fluor brom iod jod phosph phosf fosf hydr hidr carb cyan cian silic arsen oxal acet "
    "meth met eth et prop but pent hex hept oct okt"
)
_CHEMICAL_STEMS = tuple(_CHEMICAL.split())


def opposed_by_prefix(p: str, q: str, language: str) -> bool:
    """One rest behind two beginnings that say the opposite: hypotension and hypertension, Anmeldung and Abmeldung."""
    pairs = _PREFIXES.get(language)
    if pairs is None or p == q or p[-_SHORTEST_REST:] != q[-_SHORTEST_REST:]:
        return False
    return any((p[:-rest], q[:-rest]) in pairs for rest in range(_SHORTEST_REST, min(len(p), len(q))))


def other_substance(p: str, q: str) -> bool:
    """One chemical stem with two endings."""
    if p == q or not p.startswith(_CHEMICAL_STEMS) or not q.startswith(_CHEMICAL_STEMS):
        return False
    p, q = p.removesuffix("s"), q.removesuffix("s")
    for endings in _ENDINGS:
        ends_p, ends_q = ({end for end in endings if word.endswith(end)} for word in (p, q))
        for end in ends_p:
            for other in ends_q - {end}:
                stem, another = p[: -len(end)], q[: -len(other)]
                if stem == another and len(stem) >= _SHORTEST_STEM:
                    return True
    return False


_SHORTEST_PART = 3
_SHORTEST_HEAD = 5


def other_compound(p: str, q: str) -> bool:
    """German compounds of one last word behind two first ones: Fahrtkosten and Umzugskosten."""
    shared = 0
    while shared < min(len(p), len(q)) and p[-1 - shared] == q[-1 - shared]:
        shared += 1
    return shared >= _SHORTEST_HEAD and min(len(p), len(q)) - shared >= _SHORTEST_PART
