"""Whether two answers say the same: never yes or no about what could not be compared."""

from __future__ import annotations

import pytest

from cache.embedders import HashEmbedder
from serving.agreement import agree, pieces

SENTENCES = [
    "The harbour opens early for fishing boats.",
    "Ferries leave from the northern quay.",
    "Tickets are sold beside the lighthouse.",
    "Dogs travel free on every crossing.",
    "Bicycles are carried on the lower deck.",
    "Coffee is served in the saloon.",
]
NARROW = 7
"""Words: a sentence or so."""


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Four minutes.", "four  minutes.", True),
        ("Boil it 4 minutes.", "Boil it 5 minutes.", False),
        ("Yes, of course.", "Paris lies on the Seine.", False),
    ],
)
async def test_answers_agree_only_where_it_is_safe(a: str, b: str, same: bool) -> None:
    assert await agree(a, b, HashEmbedder()) is same


async def test_what_cannot_be_embedded_neither_agrees_nor_differs() -> None:
    assert await agree("Yes, of course.", "Paris lies on the Seine.", HashEmbedder(window_tokens=0)) is None
    assert await agree("a " * 40_000, "b", HashEmbedder()) is None


async def test_an_answer_longer_than_the_window_is_compared_by_its_pieces() -> None:
    embedder = HashEmbedder(256, window_tokens=NARROW)
    first, other = " ".join(SENTENCES), "\n".join(reversed(SENTENCES))
    assert await embedder.embed(first) is None
    assert await agree(first, other, embedder) is True


async def test_one_sentence_of_its_own_tells_a_long_answer_apart() -> None:
    embedder = HashEmbedder(256, window_tokens=NARROW)
    contradicted = [*SENTENCES[:-1], "Nobody may ever board without permission."]
    assert await agree(" ".join(SENTENCES), " ".join(contradicted), embedder) is False
    assert await agree(" ".join(SENTENCES), " ".join(SENTENCES[:-1]), embedder) is False


def test_pieces_keep_sentences_whole_and_lose_nothing() -> None:
    text = " ".join(SENTENCES)
    assert pieces(text, 90) == [" ".join(SENTENCES[start : start + 2]) for start in (0, 2, 4)]
    assert "".join(pieces("x" * 100, 30)) == "x" * 100
    assert pieces("one two three", 7) == ["one two", "three"]
    assert pieces("東京です。大阪です。", 6) == ["東京です。", "大阪です。"]
    assert pieces(" \n ", 5) == []
