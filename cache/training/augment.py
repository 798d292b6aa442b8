"""What people do to a question: repeat it a little differently, or add a condition. Deterministic for a seed."""

from __future__ import annotations

import random

from cache.training.families import Family, Pair

_BEFORE = {
    "en": ("Please ", "Hi, ", "Hello! ", "Could you tell me: ", "Quick question: ", "I was wondering, ", "hey "),
    "pt": ("Por favor, ", "Oi, ", "Olá! ", "Uma dúvida: ", "Bom dia, ", "Gostaria de saber: "),
    "es": ("Por favor, ", "Hola, ", "Una pregunta: ", "Buenos días, ", "Quisiera saber: "),
    "fr": ("Bonjour, ", "S'il vous plaît, ", "Une question : ", "Salut, "),
    "de": ("Hallo, ", "Bitte: ", "Eine Frage: ", "Guten Tag, "),
}
_AFTER = {
    "en": (" please", " thanks", " Thank you!", " Thanks in advance"),
    "pt": (" por favor", " obrigado", " Obrigada!"),
    "es": (" por favor", " gracias", " ¡Gracias!"),
    "fr": (" s'il vous plaît", " merci", " Merci d'avance"),
    "de": (" bitte", " danke", " Vielen Dank"),
}
_CONDITIONS = {
    "en": (
        "for kids", "for beginners", "in winter", "on weekends", "for free", "in France", "on Android", "at work",
        "as a student", "in bulk", "over the phone", "after 2020", "for small businesses", "with examples", "by hand",
        "for my grandmother", "during a storm", "in under 10 minutes", "on a budget", "without internet", "overseas",
        "at night", "for a large group", "in schools", "before surgery", "on a boat", "with one hand", "in the past",
        "in one sentence", "in Spanish", "as a table", "for dark skin", "using only the keyboard", "for two people",
    ),
    "pt": (
        "para crianças", "para iniciantes", "no inverno", "nos fins de semana", "de graça", "na França", "no Android",
        "no trabalho", "por telefone", "depois de 2020", "para pequenas empresas", "à mão", "à noite", "sem internet",
        "em uma frase", "em inglês", "para idosos", "com pouco dinheiro", "no escuro", "para duas pessoas",
    ),
    "es": (
        "para niños", "para principiantes", "en invierno", "los fines de semana", "en Francia", "en Android",
        "en el trabajo", "por teléfono", "a mano", "de noche", "sin internet", "en una frase", "en inglés",
        "para dos personas",
    ),
    "fr": (
        "pour les enfants", "pour débutants", "en hiver", "le week-end", "en Espagne", "sur Android", "au travail",
        "par téléphone", "à la main", "la nuit", "sans internet", "en une phrase", "en anglais",
    ),
    "de": (
        "für Kinder", "für Anfänger", "im Winter", "am Wochenende", "in Frankreich", "auf Android", "bei der Arbeit",
        "per Telefon", "von Hand", "nachts", "ohne Internet", "in einem Satz", "auf Englisch",
    ),
}  # fmt: skip


_NARROWER = {
    "en": ("old", "second", "annual", "small", "digital", "external", "red", "premium", "nested", "frozen", "electric",
           "wooden", "shared", "foreign", "early", "heavy", "raw", "cheap", "new", "company", "backup", "guest"),
    "pt": ("antigo", "anual", "pequeno", "digital", "externo", "vermelho", "premium", "cru", "elétrico", "estrangeiro",
           "compartilhado", "novo", "grátis"),
    "es": ("antiguo", "anual", "pequeño", "digital", "externo", "rojo", "crudo", "eléctrico", "extranjero", "nuevo"),
    "fr": ("ancien", "annuel", "numérique", "externe", "rouge", "cru", "électrique", "étranger", "partagé", "neuf"),
    "de": ("alten", "jährlichen", "kleinen", "digitalen", "externen", "roten", "rohen", "elektrischen", "neuen"),
}  # fmt: skip
_BEFORE_THE_NOUN = frozenset({"en", "de"})


def narrowings(family: Family, rng: random.Random) -> list[Pair]:
    """A question against one of its paraphrases that asks about a narrower thing: an adjective more."""
    modifiers = _NARROWER.get(family.language)
    if modifiers is None:
        return []
    out = []
    for text in family.same:
        words = rng.choice(family.same).rstrip("?.! ").split(" ")
        if len(words) < 3 or not words[-1].isalpha():
            continue
        words.insert(len(words) - (family.language in _BEFORE_THE_NOUN), rng.choice(modifiers))
        out.append(Pair(text, " ".join(words) + "?", False, "narrowing", family.language, family.domain))
    return out


def repeats(family: Family, rng: random.Random) -> list[Pair]:
    """Each question twice against itself, said with other manners or typed in haste."""
    if family.language not in _BEFORE:
        return []
    return [
        Pair(text, _repeat(text, family.language, rng), True, "repeat", family.language, family.domain)
        for text in family.same
        for _ in range(2)
    ]


def mutations(family: Family, rng: random.Random) -> list[Pair]:
    """A question against one of its paraphrases with a condition added, and against another family's."""
    conditions = _CONDITIONS.get(family.language)
    if conditions is None:
        return []
    out = []
    for text in family.same:
        other = rng.choice(family.same).rstrip("?.! ")
        changed = f"{other} {rng.choice(conditions)}?"
        out.append(Pair(text, changed, False, "mutation", family.language, family.domain))
    return out


def _repeat(text: str, language: str, rng: random.Random) -> str:
    changed = text
    for change in rng.sample((_manners, _hasty, _typo, _case, _marks), rng.choice((1, 1, 2))):
        changed = change(changed, language, rng)
    return changed


def _manners(text: str, language: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(_BEFORE[language]) + text[:1].lower() + text[1:]
    return text.rstrip("?.! ") + rng.choice(_AFTER[language])


def _hasty(text: str, language: str, rng: random.Random) -> str:
    return text.lower().replace("?", "").replace(",", "").replace("'", "").replace("¿", "")


def _typo(text: str, language: str, rng: random.Random) -> str:
    words = text.split(" ")
    long = [place for place, word in enumerate(words) if len(word) >= 6 and word.isalpha() and word.islower()]
    if not long:
        return text
    place = rng.choice(long)
    word = words[place]
    at = rng.randrange(1, len(word) - 2)
    words[place] = rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        )
    )
    return " ".join(words)


def _case(text: str, language: str, rng: random.Random) -> str:
    return text.upper() if rng.random() < 0.3 else text.lower()


def _marks(text: str, language: str, rng: random.Random) -> str:
    return rng.choice((text.rstrip("?.! "), text + "?", text + " !", "  " + text.replace(" ", "  ", 1), text + "..."))
