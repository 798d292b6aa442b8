"""Normalising, cutting, detecting and aligning."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.language.alignment import align
from cache.language.analysis import analyse
from cache.language.detect import UNKNOWN
from cache.language.lexicon import LANGUAGES, lexicon
from cache.language.normalise import fold, normalise
from cache.language.quantities import quantities
from cache.language.tokens import tokenise
from cache.language.typos import distance


@given(st.text(max_size=100))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(max_size=100))
def test_composed_and_decomposed_text_are_one(text: str) -> None:
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))


def test_invisible_characters_are_removed() -> None:
    assert normalise("re\u200bset\u2060 my\u00ad password\x00") == "reset my password"


def test_latin_accents_fold_and_other_scripts_keep_their_marks() -> None:
    assert fold("Ação È") == "acao e"
    assert fold("हिन्दी") == "हिन्दी"


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("at 5:30 pm", "en", ["17:30"]),
        ("2024-05-03", "en", ["3", "month:5", "2024"]),
        ("May 3rd, 2024", "en", ["month:5", "3", "2024"]),
        ("you may go", "en", []),
        ("$1,000.50", "en", ["1000.5 $"]),
        ("1.000,50 euros", "pt", ["1000.5 euro"]),
        ("dois quilos", "pt", ["2 kg"]),
        ("twenty five minutes", "en", ["25 min"]),
        ("10k users", "en", ["10000"]),
        ("20 °C", "en", ["20 degC"]),
        ("version 3.10", "en", ["3.10"]),
        ("50%", "en", ["50 %"]),
    ],
)
def test_quantities_have_one_spelling(text: str, language: str, expected: list[str]) -> None:
    found = quantities(tokenise(normalise(text)), lexicon(language).numbers, language)
    assert [quantity.canonical for quantity in found] == expected


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I reset my password?", "en"),
        ("Como faço para redefinir minha senha?", "pt"),
        ("¿Cómo puedo cambiar la contraseña?", "es"),
        ("Comment puis-je changer mon mot de passe ?", "fr"),
        ("Wie kann ich mein Passwort ändern?", "de"),
        ("Come posso cambiare la mia password?", UNKNOWN),
        ("Hoe kan ik mijn wachtwoord wijzigen?", UNKNOWN),
        ("パスワードを変更するには", UNKNOWN),
        ("Jakie są objawy grypy?", UNKNOWN),
        ("How do I get to Gdańsk from the airport?", "en"),
    ],
)
def test_detects(text: str, language: str) -> None:
    assert analyse(text).language == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_word_is_its_own_opposite(language: str) -> None:
    assert not [pair for pair in lexicon(language).opposites if pair[0] == pair[1]]


@pytest.mark.parametrize(
    ("a", "b", "left"),
    [
        ("recieve emails", "receive emails", 0),
        ("install the app", "installation of the app", 0),
        ("set up an e-mail account", "set up an email account", 0),
        ("a message from the World Health Organization", "a message from the WHO", 0),
        ("remove a file", "delete a file", 0),
        ("affect sales", "effect sales", 0),
        ("buy a boat", "buy a goat", 2),
        ("African rivers", "rivers in Africa", 0),
    ],
)
def test_aligns(a: str, b: str, left: int) -> None:
    found = align(analyse(a, "en"), analyse(b, "en"), lexicon("en"))
    assert len(found.left_a) + len(found.left_b) == left


@given(st.text(max_size=12), st.text(max_size=12))
def test_distance_is_symmetric_and_zero_only_for_equals(p: str, q: str) -> None:
    assert distance(p, q, 20) == distance(q, p, 20)
    assert (distance(p, q, 20) == 0) == (p == q)


def test_a_long_text_is_analysed_without_failing() -> None:
    assert len(analyse("word " * 1000).plain) == 1000
