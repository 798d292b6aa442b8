"""Words that say what a question word says: the price of X is how much X costs."""

from __future__ import annotations

_SIGNS = {
    "why": (
        "stop prevent wrong matter liegt reason caus why mak motiv razao razon porqu raison grund "
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
        "jur interest quot pric cost fee charg rate amount much pay expensiv worth valor prec cust "
        "taxa tarif costo coste prix cout preis kost limit allowanc maximum sum total"
    ),
    "howmany": "number amount count many total quantit numer cantidad nombr anzahl population habitant allowanc limit",
    "howlong": (
        "time duration long last length take period tempo duracao duracion dura prazo demor tarda "
        "duree temps dauer lang"
    ),
    "howoften": "often frequen interval schedul every time vez vec fois oft haufig regular",
}  # fmt: skip
"""Frame -> beginnings of words."""
EXPRESSED = {frame: tuple(text.split()) for frame, text in _SIGNS.items()}
