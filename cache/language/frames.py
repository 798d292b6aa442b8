"""Words that say what a question word says: the price of X is how much X costs."""

from __future__ import annotations

_SIGNS = {
    "why": (
        "wrong matter liegt reason caus why mak motiv razao razon porqu raison grund "
        "ursach lead led due"
    ),
    "when": (
        "time date day year hour month when deadlin due season period hora data dia ano horari moment "
        "prazo epoca fech heur jour anne uhr tag jahr datum"
    ),
    "where": (
        "place location locat where address site spot find situat local lugar onde endereco ubicac "
        "donde lieu endroit adress ort standort station city pais country"
    ),
    "howto": "recip receit recet rezept tutorial instruc guide trick proced process method way step",
    "how": "process proced",
    "who": "person name artist nome nombre nom",
    "howmuch": (
        "jur interest quot pric cost fee charg rate amount much pay expensiv worth valor preco precio cust "
        "taxa tarif costo coste prix cout preis kost limit allowanc maximum sum total"
    ),
    "howmany": (
        "number amount count many total quantit numer cantidad nombr anzahl population habitant allowanc limit "
        "populac poblac einwohn entitlement"
    ),
    "howlong": (
        "time duration long last length take period tempo duracao duracion dura prazo demor tarda "
        "duree temps dauer lang term frist kundigungsfrist delai plazo until year preavis preaviso notice"
    ),
    "howoften": "often frequen interval schedul every time vez vec fois oft haufig regular",
}  # fmt: skip
"""Frame -> beginnings of words."""
_SHORT = 4
"""A beginning of so few letters begins too many other words: dia is no beginning of diabetes."""


def says(word: str, signs: tuple[str, ...]) -> bool:
    """``word`` begins like one of ``signs`` and is no longer than an inflection makes it."""
    return any(word.startswith(sign) and (len(sign) > _SHORT or len(word) <= len(sign) + 2) for sign in signs)


EXPRESSED = {frame: tuple(text.split()) for frame, text in _SIGNS.items()}
