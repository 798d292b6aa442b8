"""What depends on the moment is told from what only sounds like it."""

from __future__ import annotations

import pytest

from cache.time_sensitivity import time_sensitive


@pytest.mark.parametrize(
    "text",
    [
        "What is the weather in Lisbon?",
        "Will it rain tomorrow?",
        "Who is the current president of Chile?",
        "What is the price of bitcoin?",
        "bitcoin price",
        "What's the latest version of Node?",
        "How old is the pope now?",
        "Is the pharmacy open now?",
        "What is the USD to EUR exchange rate?",
        "What time is it in Tokyo?",
        "Any news about the election?",
        "Qual é a cotação do dólar?",
        "Quem é o presidente atual do Brasil?",
        "O que aconteceu hoje?",
        "¿Qué tiempo hace en Madrid?",
        "¿Va a llover mañana?",
        "Quel est le cours de l'or ?",
        "Qui est le ministre actuel de la santé ?",
        "Was ist der aktuelle Leitzins?",
        "Wie wird das Wetter morgen?",
        "今天天气怎么样？",
        "现在几点了？",
        "今日の天気は？",
        "كم الساعة الآن؟",
        "Какая сегодня погода?",
        "오늘 날씨",
        "Jaka jest dziś pogoda?",
        "Bugün hava nasıl?",
        "आज मौसम कैसा है?",
        "Che tempo fa a Milano?",
        "Wie viel Uhr ist es?",
        "What's the date?",
        "What year is it?",
        "¿Qué día es?",
        "Quel jour sommes-nous ?",
        "que horas sao",
        "meteo paris",
        "How much is bitcoin worth?",
        "Is it raining in London?",
        "What can I do this weekend?",
        "Who won last week?",
        "What's the current date?",
        "What time is it now in Tokyo, and what is the current time in Lima?",
        "Who is the current British prime minister?",
        "current version of Python",
        "Quem é o atual presidente do Brasil?",
        "Qui a gagné hier ?",
        "weather in Berlin",
        "Wetter in Berlin",
    ],
)
def test_an_answer_of_the_moment_is_time_sensitive(text: str) -> None:
    assert time_sensitive(text)


@pytest.mark.parametrize(
    "text",
    [
        "How do I change the price of a product in my shop?",
        "What is a price elasticity of demand?",
        "How do I measure electric current?",
        "What is the difference between alternating current and direct current?",
        "How do I change my current password?",
        "I forgot my card at home, what now?",
        "What causes the weather to change with altitude?",
        "How do I open a current account?",
        "Is breakfast included in the price?",
        "Como calculo o preço de venda de um produto?",
        "Como altero a minha senha atual?",
        "Perdi o cartão, e agora?",
        "¿Cómo fijo los precios de mi tienda?",
        "¿Puedo tomar café por la mañana?",
        "Comment fixer le prix d'un produit ?",
        "Wie ändere ich mein aktuelles Passwort?",
        "Wie berechne ich den Preis eines Produkts?",
        "Guten Morgen, wie öffne ich ein Konto?",
        "Wie kann ich hier mein Passwort ändern?",
        "How do I print the current directory in Linux?",
        "current date in Python",
        "How do I get today's date in JavaScript?",
        "current ratio",
        "current liabilities",
        "How do I kill the current process?",
        "How does current affect temperature in a wire?",
        "What is the date of the battle of Hastings?",
        "What is the last week of pregnancy like?",
        "如何修改密码？",
        "كم مرة في اليوم يجب أن أغسل أسناني؟",
        "Şifremi nasıl değiştiririm?",
    ],
)
def test_what_only_sounds_like_it_is_not(text: str) -> None:
    assert not time_sensitive(text)


@pytest.mark.parametrize(
    "text",
    [
        "Translate 'see you tomorrow'",
        'How do I say "what is the weather today" in French?',
        "What does 今天 mean in English?",
        "Was bedeutet «hoje»?",
        "Who sang Yesterday?",
        "Chords of Yesterday by the Beatles",
    ],
)
def test_words_that_are_spoken_of_ask_for_nothing(text: str) -> None:
    assert not time_sensitive(text)


def test_a_question_that_stands_in_quotes_as_a_whole_is_asked() -> None:
    assert time_sensitive('"What is the weather today?"')


def test_an_apostrophe_opens_no_quote() -> None:
    assert time_sensitive("What's happening in my brother's town today, and what's new?")
