"""One pass over the texts of several requests gives each its own vectors and its own work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.embeddings.batching import pieces_of, run_pass, texts_in
from serving.embeddings.encoding import EncodeRequest
from tests.unit.embeddings.fakes import WordEncoder


def request(name: str, *texts: str) -> EncodeRequest:
    return EncodeRequest(name, f"tenant of {name}", texts)


def test_requests_share_a_pass_and_each_gets_its_own() -> None:
    encoder = WordEncoder()
    asked = [request("a", "one", "two words"), request("b", "three words here")]
    pieces = [piece for each in asked for piece in pieces_of(each, encoder.tokens(each.texts), 8)]
    ticks = iter((10.0, 10.5))
    done, steps = run_pass(encoder, pieces, "words", clock=lambda: next(ticks))
    assert encoder.passes == [["one", "two words", "three words here"]]
    assert [len(each.vectors) for each in done] == [2, 1]
    assert np.array_equal(done[1].vectors, encoder.encode(["three words here"]))
    assert [(r.request_id, r.tenant, r.prefill_tokens) for each in done for r in each.records] == [
        ("a", "tenant of a", 3),
        ("a", "tenant of a", 4),
        ("b", "tenant of b", 5),
    ]
    assert {(r.started_seconds, r.ended_seconds) for each in done for r in each.records} == {(10.0, 10.5)}
    assert (steps.steps, steps.sequence_steps) == (1, 3)


@given(st.integers(1, 200), st.integers(1, 64))
def test_a_request_is_cut_into_pieces_that_fit_and_lose_nothing(count: int, most: int) -> None:
    texts = tuple(f"text {number}" for number in range(count))
    asked = request("a", *texts)
    tokens = list(range(count))
    pieces = pieces_of(asked, tokens, most)
    assert all(1 <= texts_in([piece]) <= most for piece in pieces)
    assert tuple(text for piece in pieces for text in piece.texts) == texts
    assert [length for piece in pieces for length in piece.tokens] == tokens


def test_a_pass_that_fails_says_so_and_books_nothing() -> None:
    class Broken(WordEncoder):
        def encode(self, texts):  # type: ignore[no-untyped-def]
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        run_pass(Broken(), pieces_of(request("a", "x"), [3], 8), "words")
