"""Numbers, dates, times, money and units, each in one canonical spelling."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.language.tokens import Token

_UNIT_NAMES = {
    "%": "% percent pct porcento prozent",
    "$": "$ dollar dollars usd dolar dolares bucks",
    "euro": "euro euros eur",
    "pound": "gbp quid",
    "yen": "yen jpy iene ienes",
    "real": "reais brl",
    "rupee": "rupee rupees inr rupia rupias roupie roupies rupien",
    "won": "won wons krw",
    "ruble": "ruble rubles rouble roubles rub rublo rublos rubel",
    "lira": "lira liras",
    "shekel": "shekel shekels ils",
    "dong": "dong vnd",
    "baht": "baht thb",
    "peso": "peso pesos",
    "hryvnia": "hryvnia uah",
    "naira": "naira ngn",
    "s": "sec secs seconds segundo segundos secondes sekunde sekunden",
    "min": "min mins minute minutes minuto minutos minuten",
    "h": "hr hrs hour hours hora horas heure heures stunde stunden",
    "day": "day days dia dias jour jours tag tage tagen",
    "week": "week weeks wk wks semana semanas semaine semaines woche wochen",
    "month": "month months mes meses mois monat monate monaten",
    "year": "year years yr yrs ano anos año años an ans annee annees jahr jahre jahren",
    "mm": "mm millimeter millimeters millimetre millimetres milimetro milimetros",
    "cm": "cm centimeter centimeters centimetre centimetres centimetro centimetros zentimeter",
    "m": "m meter meters metre metres metro metros",
    "km": "km kms kilometer kilometers kilometre kilometres quilometro quilometros kilometro kilometros",
    "mile": "mile miles milha milhas milla millas meile meilen",
    "foot": "ft foot feet pe pes pie pies",
    "inch": "inch inches polegada polegadas pulgada pulgadas pouce pouces zoll",
    "yard": "yard yards yd",
    "mg": "mg milligram milligrams miligrama miligramas miligramo miligramos milligramm",
    "g": "g gram grams gramme grammes grama gramas gramo gramos gramm",
    "kg": "kg kgs kilo kilos kilogram kilograms quilo quilos kilogramo kilogramos kilogramm",
    "lb": "lb lbs pound pounds libra libras pfund livre livres",
    "oz": "oz ounce ounces onca oncas onza onzas",
    "ml": "ml milliliter milliliters millilitre mililitro mililitros milliliter",
    "l": "l liter liters litre litres litro litros",
    "gallon": "gal gallon gallons galao galoes galon galones",
    "cup": "cup cups xicara xicaras taza tazas tasse tassen",
    "degC": "celsius",
    "degF": "fahrenheit",
    "K": "kelvin",
    "deg": "degree degrees grau graus grado grados degre degres grad",
    "byte": "byte bytes",
    "kb": "kb kilobyte kilobytes",
    "mb": "mb megabyte megabytes",
    "gb": "gb gigabyte gigabytes gig gigs",
    "tb": "tb terabyte terabytes",
    "kw": "kw kilowatt kilowatts",
    "w": "w watt watts",
    "kwh": "kwh",
    "v": "v volt volts",
    "hz": "hz hertz",
    "mhz": "mhz",
    "ghz": "ghz",
    "mph": "mph",
    "kmh": "kmh kph",
}
UNITS = {alias: name for name, aliases in _UNIT_NAMES.items() for alias in aliases.split()}
_CURRENCY = frozenset({"$", "euro", "pound", "yen", "real", "rupee", "won", "ruble", "lira", "shekel", "dong", "baht",
                       "peso", "hryvnia", "naira"})  # fmt: skip
SIGNS = frozenset({"$", "euro", "pound", "yen", "rupee", "won", "ruble", "lira", "shekel", "dong", "baht", "peso",
                   "hryvnia", "naira"})  # fmt: skip
"""What a currency's sign is written out as, before its amount."""
_MULTIPLIERS = {
    "k": 1e3, "thousand": 1e3, "mil": 1e3, "mille": 1e3, "tausend": 1e3, "million": 1e6, "millions": 1e6,
    "milhao": 1e6, "milhoes": 1e6, "millon": 1e6, "millones": 1e6, "millionen": 1e6, "billion": 1e9,
    "bilhao": 1e9, "bilhoes": 1e9, "milliard": 1e9, "milliards": 1e9, "hundred": 1e2, "dozen": 12.0,
}  # fmt: skip
_ORDINALS = frozenset(["st", "nd", "rd", "th", "o", "a", "er", "e", "eme", "ers"])
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan janeiro enero janvier januar", "february feb fevereiro febrero fevrier februar",
            "march mar marco marzo mars marz", "april apr abril avril", "may maio mayo mai",
            "june jun junho junio juin juni",
            "july jul julho julio juillet juli", "august aug agosto aout",
            "september sep sept setembro septiembre septembre",
            "october oct outubro octubre octobre oktober", "november nov novembro noviembre novembre",
            "december dec dezembro diciembre decembre dezember",
        ),
        start=1,
    )
    for name in names.split()
}  # fmt: skip
_AMBIGUOUS_MONTHS = frozenset({"may", "march", "mar", "mars", "mai", "sep", "dec", "jan", "jun", "juin"})
_ROMAN = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12, "XIII": 13, "XIV": 14,
          "XV": 15, "XVI": 16, "XX": 20, "XXI": 21}  # fmt: skip
_THOUSANDS_COMMA = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?")
_THOUSANDS_POINT = re.compile(r"\d{1,3}(\.\d{3})+(,\d+)?")


@dataclass(frozen=True, slots=True)
class Quantity:
    """``canonical`` is what is compared; ``length`` tokens from ``at`` spell it."""

    canonical: str
    at: int
    length: int


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _value(text: str, language: str) -> float | None:
    """None for what is no plain number, as a version of three parts."""
    if language == "en" or language == "":
        if _THOUSANDS_COMMA.fullmatch(text):
            text = text.replace(",", "")
    elif _THOUSANDS_POINT.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(text: str) -> list[str] | None:
    if "-" in text:
        year, month, day = (int(part) for part in text.split("-"))
    else:
        first, second, year = (int(part) for part in text.split("/"))
        if first > 12:
            day, month = first, second
        elif second > 12:
            month, day = first, second
        else:
            return [f"{first}/{second}/{year}"]
    return [str(day), f"month:{month}", str(year)]


def _hour(hours: float, mark: str) -> float:
    hours = hours % 12
    return hours + 12 if mark == "p" else hours


def quantities(tokens: Sequence[Token], words: Mapping[str, float | str], language: str) -> list[Quantity]:
    """Every quantity in order. ``words`` are the number words of the language."""
    out: list[Quantity] = []
    at = 0
    while at < len(tokens):
        found = _at(tokens, at, words, language)
        if found is None:
            at += 1
            continue
        canonical, length = found
        out.extend(Quantity(part, at, length) for part in canonical)
        at += length
    return out


def _norm(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].norm if 0 <= at < len(tokens) else ""


def _at(
    tokens: Sequence[Token], at: int, words: Mapping[str, float | str], language: str
) -> tuple[list[str], int] | None:
    token = tokens[at]
    if token.kind == "word":
        month = _MONTHS.get(token.norm)
        if month is not None and _is_month(tokens, at):
            return [f"month:{month}"], 1
        if token.text in _ROMAN:
            return [str(_ROMAN[token.text])], 1
        if len(token.norm) == 1 and token.text.isupper() and not token.starts and token.norm not in "iaoey":
            return [f"letter:{token.norm}"], 1
        value = words.get(token.norm)
        if value is None:
            return None
        if isinstance(value, str):
            return [value], 1
        return _measured(tokens, at, float(value), words)
    if token.kind != "number":
        return None
    if re.fullmatch(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}", token.norm):
        date = _date(token.norm)
        return (date, 1) if date else None
    clock = re.fullmatch(r"(\d{1,2})[:h](\d{2})(?::\d{2})?", token.norm)
    if clock:
        hours, minutes, length = float(clock[1]), clock[2], 1
        if _norm(tokens, at + 1) in ("am", "pm"):
            hours, length = _hour(hours, _norm(tokens, at + 1)[0]), 2
        return [f"{int(hours)}:{minutes}"], length
    following = _norm(tokens, at + 1)
    plain = _value(token.norm, language)
    if plain is None:
        return [token.norm], 1
    if following in ("am", "pm"):
        return [f"{int(_hour(plain, following[0]))}:00"], 2
    if following in ("a", "p") and _norm(tokens, at + 2) == "." and _norm(tokens, at + 3) == "m":
        return [f"{int(_hour(plain, following))}:00"], 4
    if (following in _ORDINALS and language != "fr") or following in ("er", "eme"):
        glued = following in ("st", "nd", "rd", "th", "er", "eme")
        if glued:
            return [_plain(plain)], 2
    if language == "en" and re.fullmatch(r"\d+\.\d+", token.norm):
        # 3.10 is a version as well as a number: the digits are kept as written.
        return _measured(tokens, at, plain, words, written=token.norm)
    return _measured(tokens, at, plain, words)


def _measured(
    tokens: Sequence[Token], at: int, value: float, words: Mapping[str, float | str], written: str | None = None
) -> tuple[list[str], int]:
    length = 1
    while True:
        following = _norm(tokens, at + length)
        multiplier = _MULTIPLIERS.get(following)
        spelt = words.get(following) if multiplier is None else None
        if multiplier is not None:
            value, written, length = value * multiplier, None, length + 1
        elif isinstance(spelt, int | float) and 20 <= value < 100 and value % 10 == 0 and spelt < 10:
            value, length = value + float(spelt), length + 1
        else:
            break
    number = written or _plain(value)
    if _norm(tokens, at + length) in ("us", "usa") and UNITS.get(_norm(tokens, at + length + 1)) == "$":
        length += 1
    unit = UNITS.get(_norm(tokens, at + length))
    if unit is None and _norm(tokens, at + length) in ("-", "°") and at + length + 1 < len(tokens):
        unit = {"c": "degC", "f": "degF"}.get(_norm(tokens, at + length + 1), UNITS.get(_norm(tokens, at + length + 1)))
        if unit is None and _norm(tokens, at + length) == "°":
            return [f"{number} deg"], length + 1
        if unit is not None:
            length += 1
    if unit == "deg" and UNITS.get(_norm(tokens, at + length + 1)) in ("degC", "degF"):
        unit, length = UNITS[_norm(tokens, at + length + 1)], length + 1
    if unit is not None:
        return [f"{number} {unit}"], length + 1
    before = UNITS.get(_norm(tokens, at - 1))
    if before in _CURRENCY or _norm(tokens, at - 1) == "pound":
        return [f"{number} {'lb' if _norm(tokens, at - 1) == 'pound' else before}"], length
    return [number], length


def _is_month(tokens: Sequence[Token], at: int) -> bool:
    token = tokens[at]
    if token.norm not in _AMBIGUOUS_MONTHS:
        return True
    beside = (at > 0 and tokens[at - 1].kind == "number") or (at + 1 < len(tokens) and tokens[at + 1].kind == "number")
    return (
        beside
        or (token.text[:1].isupper() and not token.starts)
        or _norm(tokens, at - 1) in ("in", "of", "by", "em", "en", "de")
    )
