from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.body import BODIES
from serving.engines.asked import asked_choices, asked_prompts, asked_sequences, asked_tokens

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


@pytest.mark.parametrize(
    ("path", "payload", "tokens"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 5}, 5),
        (CHAT, {"max_completion_tokens": 7, "max_tokens": 5}, 7),
        (CHAT, {"max_completion_tokens": None, "max_tokens": 5}, 5),
        (CHAT, {"max_tokens": 5, "max_output_tokens": 9}, 5),
        (CHAT, {"max_output_tokens": 9}, None),
        (COMPLETIONS, {"max_tokens": 500, "max_completion_tokens": -1_000_000}, 500),
        (COMPLETIONS, {"max_tokens": 500, "max_completion_tokens": 1}, 500),
        (RESPONSES, {"max_output_tokens": 9, "max_tokens": 5}, 9),
        (RESPONSES, {"max_completion_tokens": 1}, None),
        ("/v1/embeddings", {"max_tokens": 5}, None),
    ],
)
def test_the_answer_length_asked_for(path: str, payload: dict[str, Any], tokens: int | None) -> None:
    assert asked_tokens(path, payload) == tokens


@pytest.mark.parametrize(
    ("path", "payload", "sequences"),
    [
        (CHAT, {"messages": [{"content": "a"}, {"content": "b"}]}, 1),
        (CHAT, {"messages": [{"content": "a"}], "n": 3}, 3),
        (CHAT, {"messages": [{"content": "a"}], "prompt": ["a", "b"]}, 1),
        (COMPLETIONS, {"prompt": "a", "n": None}, 1),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2}, 4),
        (COMPLETIONS, {"prompt": [[1, 2], [3], [4]]}, 3),
        (COMPLETIONS, {"prompt": []}, 1),
        (RESPONSES, {"input": "a", "n": -1000}, 1),
        (RESPONSES, {"input": "a", "n": 3}, 1),
        (RESPONSES, {"input": "a", "n": "abc"}, 1),
    ],
)
def test_every_prompt_of_a_request_has_its_answers(path: str, payload: dict[str, Any], sequences: int) -> None:
    assert asked_sequences(path, payload) == sequences


_ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers())
_NAMES = st.sampled_from(["n", "max_tokens", "max_completion_tokens", "max_output_tokens", "prompt"])


@given(path=st.sampled_from(sorted(BODIES)), payload=st.dictionaries(_NAMES, _ANYTHING))
def test_whatever_a_body_holds_the_figures_are_counts(path: str, payload: dict[str, Any]) -> None:
    for count in (asked_choices(path, payload), asked_prompts(path, payload), asked_tokens(path, payload) or 1):
        assert type(count) is int
        assert count > 0
