"""Does the answer depend on when the question is asked? Judged by what is asked for, not by single words."""

from __future__ import annotations

import re

_ASSETS = (
    r"(?:bitcoins?|btc|ethereum|eth|crypto|gold|silver|crude|oil|petrol|gasoline|diesel|natural gas|shares?|stocks?"
    r"|ouro|prata|dólar|euro|petróleo|gasolina|ações|oro|plata|acciones|argent|pétrole|essence|actions"
    r"|goldes?|silber|öl|benzin|aktien?|tesla|apple stock|nvidia)"
)
"""What is traded by the minute."""
_TIME_SIGNS = {
    "en": (
        "today|tonight|tomorrow|yesterday|nowadays|latest|newest|breaking news|this (?:morning|evening|week|month|year)"
        "|(?:right|just|even|as of|open|on|until|up to) now|at the moment|what time is it|what(?:'s| is) the time"
        "|what day is it|(?:who|what|where|which|how \\w+)(?:'s|'re| is| are)\\b[^.?!]{0,60}\\bnow(?= *(?:[?.!]|$))"
        "|(?:currently|at present)|(?<!my )(?<!your )(?<!our )(?<!their )(?<!direct )(?<!alternating )(?<!electric )"
        "(?<!eddy )(?<!ocean )current (?!account|password|email|flow|through|in (?:a|the) (?:circuit|wire)|density"
        "|transformer|divider)\\w+"
        "|weather forecast|weather (?:like )?(?:in|for|at)|(?:what(?:'s| is)|how(?:'s| is)) the weather"
        "|will it (?:rain|snow)"
        "|exchange rate|(?:stock|share|market) prices?|(?:price|worth|value) of (?:a |one )?"
        + _ASSETS
        + "|"
        + _ASSETS
        + " price|live score|news (?:about|on|from)"
    ),
    "pt": (
        "hoje|amanhã|ontem|neste momento|agora mesmo|atualmente|est[ae] (?:manhã|noite|semana|mês|ano)|que horas são"
        "|(?:qual|quem|quanto|onde)\\b[^.?!]{0,60}\\bagora(?= *(?:[?.!]|$))|cotação"
        "|(?:presidente|versão|taxa|cotação|valor|governo|ministr[oa]|preço|população|situação) atual"
        "|previsão do tempo|como está o tempo|vai chover|(?:preço|valor) d[oae] " + _ASSETS + "|notícias"
    ),
    "es": (
        "hoy|ayer|ahora mismo|actualmente|en este momento|est[ea] (?:mañana|noche|semana|mes|año)|qué hora es"
        "|(?<!la )mañana|pronóstico del tiempo|qué tiempo hace|va a llover"
        "|(?:presidente|versión|tasa|valor|gobierno|ministr[oa]|precio|población|situación) actual|cotización"
        "|(?:precio|valor) del? " + _ASSETS + "|noticias"
    ),
    "fr": (
        "aujourd['’]hui|demain|hier|en ce moment|actuellement|cette (?:semaine|année)|ce (?:matin|soir|mois)"
        "|quelle heure est-il|(?:président|version|taux|valeur|gouvernement|ministre|prix|population|situation)"
        " actuel(?:le)?"
        "|météo|quel temps fait-il|va-t-il pleuvoir|(?:prix|cours|valeur) (?:du|de la|de l['’]|des) ?(?:or|"
        + _ASSETS[3:-1]
        + ")"
        + "|actualités"
    ),
    "de": (
        "heute|gestern|derzeit|zurzeit|im moment|gerade jetzt|diese[nrs]? (?:woche|monat|jahr)|wie spät ist es"
        "|wettervorhersage|wie (?:ist|wird) das wetter|wetter in|wird es regnen|(?<!mein )(?<!meine )(?<!meinen )"
        "aktuell(?:e|er|en|es)? (?!passwort|konto)\\w+|neueste[nrs]?|(?<!am )(?<!jeden )(?<!guten )morgen"
        "|wechselkurs|aktienkurs"
        "|(?:preis|kurs|wert) (?:von|des|der) " + _ASSETS + "|nachrichten über"
    ),
    "it": "oggi|domani|ieri|adesso|attualmente|in questo momento|che ore sono|previsioni del tempo|che tempo fa",
}
"""What an answer that depends on the moment is asked with. Words that are as often timeless (price, current as in
electric current, now as in what now) count only where what stands beside them makes them a matter of the moment."""
_TIME = re.compile(r"(?<!\w)(?:" + "|".join(_TIME_SIGNS.values()) + r")(?!\w)", re.IGNORECASE)


_TIME_CHARACTERS = 2000


def time_sensitive(text: str) -> bool:
    """Words whose answer changes with the clock, near the beginning or the end: the search must not stall the loop."""
    if len(text) > 2 * _TIME_CHARACTERS:
        text = text[:_TIME_CHARACTERS] + "\n" + text[-_TIME_CHARACTERS:]
    return _TIME.search(text) is not None
