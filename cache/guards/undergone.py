"""To pay someone and to get paid by someone; to block someone and to be blocked: who is the one it is done to."""

from __future__ import annotations

from cache.guards.comparison import Comparison
from cache.language.analysis import Analysis
from cache.language.lexicon import Lexicon

_BECOMES = frozenset({"get", "gets", "getting", "got", "be", "been", "being", "am", "was", "is", "are", "were"})
_ME = {
    "en": frozenset({"me", "us"}),
    "pt": frozenset({"me", "mim", "nos"}),
    "es": frozenset({"me", "mi", "nos"}),
    "fr": frozenset({"me", "m", "moi", "nous"}),
    "de": frozenset({"mich", "mir", "uns"}),
}
_SOMEONE_TEXT = "someone somebody anyone anybody people alguem alguien quelqu quelqu'un jemand jemanden jemandem"
_SOMEONE = frozenset(_SOMEONE_TEXT.split())
_I = frozenset({"i", "we", "ich", "wir", "je", "eu"})


def undergone(pair: Comparison) -> str | None:
    words = pair.words
    if words is None:
        return None
    for mine, other in ((pair.a, pair.b), (pair.b, pair.a)):
        if words.language == "en":
            verb = _done_to(mine, words)
            if verb and not _done_to(other, words) and _does(other, verb, words):
                return f"to {verb} against to be the one it is done to"
        if _done_to_me(mine, words) and not _done_to_me(other, words) and _share_a_verb(pair):
            return "done to me on one side"
    return None


def _done_to(text: Analysis, words: Lexicon) -> str:
    """The verb that I undergo: get paid by a client, be sued by a neighbour."""
    plain = text.plain
    for at in range(len(plain) - 2):
        participle = plain[at + 1]
        if plain[at] not in _BECOMES or "by" not in plain[at + 2 :] or words.stem(participle) == participle:
            continue
        if not _I.isdisjoint(plain[max(0, at - 4) : at]):
            return words.stem(participle)
    return ""


def _does(text: Analysis, verb: str, words: Lexicon) -> bool:
    plain = text.plain
    return any(
        words.stem(norm) == verb and (not at or plain[at - 1] not in _BECOMES) and not _I.isdisjoint(plain[:at])
        for at, norm in enumerate(plain)
    )


def _done_to_me(text: Analysis, words: Lexicon) -> bool:
    spoken = {part for norm in text.plain for part in norm.split("'")}
    return not _SOMEONE.isdisjoint(text.plain) and not _ME[words.language].isdisjoint(spoken)


def _share_a_verb(pair: Comparison) -> bool:
    someone = all(not _SOMEONE.isdisjoint(text.plain) for text in (pair.a, pair.b))
    return someone and bool(pair.alignment.matches)
