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
    ],
)
def test_what_only_sounds_like_it_is_not(text: str) -> None:
    assert not time_sensitive(text)
