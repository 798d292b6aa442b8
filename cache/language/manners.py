"""Please and thank you, greetings, particles that only mark a question: in languages that have no lexicon."""

from __future__ import annotations

_BEFORE_TEXT = (
    "请问 請問 请告诉我 請告訴我 麻烦问一下 想问一下 你好 您好 すみません すみませんが こんにちは 教えてください "
    "안녕하세요 пожалуйста скажите подскажите скажи подскажи здравствуйте привет ciao "
    "salve buongiorno scusa scusi hallo hoi hej "
    "merhaba lütfen proszę cześć prosím dobrý_den ahoj مرحبا لطفا من_فضلك नमस्ते कृपया "
    "per_favore per_piacere alstublieft alsjeblieft snälla tack"
)
_AFTER_TEXT = (
    "吗 嗎 呢 谢谢 謝謝 ですか でしょうか なのですか なんですか なのでしょうか ありがとう ありがとうございます "
    "を教えてください を教えて 教えてください お願いします "
    "пожалуйста спасибо per_favore per_piacere grazie grazie_mille alstublieft alsjeblieft bedankt dank_je tack snälla "
    "lütfen teşekkürler proszę dziękuję prosím děkuji شكرا من_فضلك धन्यवाद 주세요 감사합니다"
)


def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    """Longest first; scripts without spaces come character by character, as the tokens do."""
    parts = (tuple(phrase.split("_")) if phrase[0] < "\u3000" else tuple(phrase) for phrase in text.split())
    return tuple(sorted(parts, key=len, reverse=True))


_BEFORE, _AFTER = _phrases(_BEFORE_TEXT), _phrases(_AFTER_TEXT)


def without_manners(spelt: tuple[str, ...]) -> slice:
    """What is left of the words, never nothing."""
    start, end = 0, len(spelt)
    changed = True
    while changed:
        changed = False
        for phrase in _BEFORE:
            if end - start > len(phrase) and spelt[start : start + len(phrase)] == phrase:
                start, changed = start + len(phrase), True
                break
        for phrase in _AFTER:
            if end - start > len(phrase) and spelt[end - len(phrase) : end] == phrase:
                end, changed = end - len(phrase), True
                break
    return slice(start, end)
