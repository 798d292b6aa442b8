from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.admission import Limits, Refusal, refuse_answer, refuse_request, refuse_semantic, time_sensitive
from cache.identity import CHAT_PATH, COMPLETIONS_PATH

USER = {"role": "user", "content": "What is a monad?"}


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages) or [USER], **fields}


def saying(content: Any) -> dict[str, Any]:
    return chat({"role": "user", "content": content})


TEXT_PART = {"type": "text", "text": "What is this?"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


@pytest.mark.parametrize(
    ("path", "payload", "refusal"),
    [
        (CHAT_PATH, chat(), None),
        (CHAT_PATH, chat(n=1, logprobs=False, stream=True, temperature=1.9), None),
        (CHAT_PATH, chat(tools=[{"type": "function", "function": {"name": "f"}}]), None),
        (CHAT_PATH, saying([TEXT_PART, TEXT_PART]), None),
        (CHAT_PATH, chat(USER, {"role": "assistant", "content": None, "tool_calls": []}, USER), None),
        (COMPLETIONS_PATH, {"prompt": "Once upon a time"}, None),
        (COMPLETIONS_PATH, {"prompt": "Once", "n": None, "best_of": 1, "logprobs": None}, None),
        ("/v1/embeddings", {"input": "x"}, Refusal.PATH),
        ("/v1/responses", chat(), Refusal.PATH),
        (CHAT_PATH, chat(n=2), Refusal.SEVERAL_CHOICES),
        (COMPLETIONS_PATH, {"prompt": "x", "best_of": 3}, Refusal.SEVERAL_CHOICES),
        (CHAT_PATH, chat(logprobs=True), Refusal.LOGPROBS),
        (CHAT_PATH, chat(top_logprobs=2), Refusal.LOGPROBS),
        (CHAT_PATH, chat(prompt_logprobs=0), Refusal.LOGPROBS),
        (COMPLETIONS_PATH, {"prompt": "x", "logprobs": 0}, Refusal.LOGPROBS),
        (CHAT_PATH, chat(return_token_ids=True), Refusal.TOKEN_IDS),
        (CHAT_PATH, saying([TEXT_PART, IMAGE_PART]), Refusal.NOT_TEXT),
        (CHAT_PATH, saying([{"type": "input_audio", "input_audio": {}}]), Refusal.NOT_TEXT),
        (CHAT_PATH, chat({"role": "user", "content": [IMAGE_PART]}, USER), Refusal.NOT_TEXT),
        (CHAT_PATH, chat({"role": "assistant", "audio": {"id": "a"}}, USER), Refusal.NOT_TEXT),
        (CHAT_PATH, chat(modalities=["text", "audio"]), Refusal.NOT_TEXT),
        (CHAT_PATH, {"messages": "hello"}, Refusal.NOT_TEXT),
        (COMPLETIONS_PATH, {"prompt": ["a", "b"]}, Refusal.NOT_TEXT),
        (COMPLETIONS_PATH, {"prompt": [1, 2, 3]}, Refusal.NOT_TEXT),
        (COMPLETIONS_PATH, {}, Refusal.NOT_TEXT),
        (CHAT_PATH, saying(""), Refusal.EMPTY_PROMPT),
        (CHAT_PATH, saying(" \n\t "), Refusal.EMPTY_PROMPT),
        (CHAT_PATH, saying("\u200b\u200d\ufeff"), Refusal.EMPTY_PROMPT),
        (CHAT_PATH, saying("\x00\x07"), Refusal.EMPTY_PROMPT),
        (CHAT_PATH, saying([{"type": "text", "text": "  "}]), Refusal.EMPTY_PROMPT),
        (CHAT_PATH, {"messages": []}, Refusal.EMPTY_PROMPT),
        (COMPLETIONS_PATH, {"prompt": "   "}, Refusal.EMPTY_PROMPT),
        (CHAT_PATH, saying("What is the weather in Oslo?"), Refusal.TIME_SENSITIVE),
        (COMPLETIONS_PATH, {"prompt": "The latest news:"}, Refusal.TIME_SENSITIVE),
    ],
)
def test_requests(path: str, payload: dict[str, Any], refusal: Refusal | None) -> None:
    assert refuse_request(path, payload) is refusal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the news TODAY?", True),
        ("What is happening now?", True),
        ("bitcoin price", True),
        ("Quem é o presidente atual do Brasil?", True),
        ("Qual é a previsão do tempo?", True),
        ("¿Qué tiempo hace hoy?", True),
        ("Quel est le prix de l'or ?", True),
        ("Wie ist das Wetter?", True),
        ("Do you know snow?", False),
        ("Explain the Nowhere theorem", False),
        ("What is priceless?", False),
        ("Quanto tempo leva a viagem?", False),
        ("x" * 50_000 + " today", True),
        ("today " + "x" * 50_000, True),
    ],
)
def test_time_sensitivity(text: str, expected: bool) -> None:
    assert time_sensitive(text) is expected


@pytest.mark.parametrize(
    ("payload", "text", "refusal"),
    [
        ({}, "What is a monad?", None),
        ({"temperature": 1.0}, "What is a monad?", None),
        ({"temperature": None}, "Línea\ncon\ttabulador\r\n", None),
        ({"temperature": 0}, "日本の首都はどこですか", None),
        ({}, None, Refusal.NO_TEXT),
        ({}, "", Refusal.NO_TEXT),
        ({}, " \u200b ", Refusal.NO_TEXT),
        ({"temperature": 1.01}, "x", Refusal.TEMPERATURE),
        ({"temperature": "hot"}, "x", Refusal.TEMPERATURE),
        ({"temperature": float("nan")}, "x", Refusal.TEMPERATURE),
        ({}, "x" * 4097, Refusal.WINDOW),
        ({}, "What is\u200b a monad?", Refusal.INVISIBLE),
        ({}, "What is a monad?\U000e0041\U000e0042", Refusal.INVISIBLE),
        ({}, "What \u202eis\u202c a monad?", Refusal.INVISIBLE),
        ({}, "What\x00is", Refusal.INVISIBLE),
        ({}, "a\ue000b", Refusal.INVISIBLE),
    ],
)
def test_the_semantic_tier_is_stricter(payload: dict[str, Any], text: str | None, refusal: Refusal | None) -> None:
    assert refuse_semantic(payload, text, Limits()) is refusal


def answering(**message: Any) -> dict[str, Any]:
    return {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "A monoid.", **message},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ]
    }


def choosing(**choice: Any) -> dict[str, Any]:
    return {"choices": [{**answering()["choices"][0], **choice}]}


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (answering(), None),
        (answering(reasoning_content="Hm.", refusal=None, tool_calls=[], annotations=[]), None),
        (choosing(stop_reason=None), None),
        (None, Refusal.MALFORMED),
        ([], Refusal.MALFORMED),
        ({}, Refusal.MALFORMED),
        ({"choices": []}, Refusal.MALFORMED),
        ({"choices": ["x"]}, Refusal.MALFORMED),
        ({"choices": [{"finish_reason": "stop"}]}, Refusal.MALFORMED),
        ({"error": {"message": "overloaded"}}, Refusal.ERROR_BODY),
        ({**answering(), "error": {"message": "late"}}, Refusal.ERROR_BODY),
        ({"choices": 2 * answering()["choices"]}, Refusal.SEVERAL_CHOICES),
        (choosing(finish_reason="length"), Refusal.FINISH_REASON),
        (choosing(finish_reason="content_filter"), Refusal.FINISH_REASON),
        (choosing(finish_reason="tool_calls"), Refusal.FINISH_REASON),
        (choosing(finish_reason="abort"), Refusal.FINISH_REASON),
        (choosing(finish_reason=None), Refusal.FINISH_REASON),
        (choosing(logprobs={"content": []}), Refusal.LOGPROBS),
        (answering(tool_calls=[{"id": "1"}]), Refusal.TOOL_CALLS),
        (answering(function_call={"name": "f"}), Refusal.TOOL_CALLS),
        (answering(refusal="I cannot."), Refusal.MODEL_REFUSED),
        (answering(content=[{"type": "text", "text": "x"}]), Refusal.NOT_TEXT),
        (answering(audio={"id": "a"}), Refusal.NOT_TEXT),
        (answering(content=None), Refusal.EMPTY_ANSWER),
        (answering(content=""), Refusal.EMPTY_ANSWER),
        (answering(content=" \n", reasoning_content="long thoughts"), Refusal.EMPTY_ANSWER),
    ],
)
def test_chat_answers(body: Any, refusal: Refusal | None) -> None:
    assert refuse_answer(CHAT_PATH, body) is refusal


@pytest.mark.parametrize(
    ("choice", "refusal"),
    [
        ({"text": " there was", "finish_reason": "stop"}, None),
        ({"text": "", "finish_reason": "stop"}, Refusal.EMPTY_ANSWER),
        ({"text": "there", "finish_reason": "length"}, Refusal.FINISH_REASON),
        ({"text": None, "finish_reason": "stop"}, Refusal.MALFORMED),
        ({"text": "a", "finish_reason": "stop", "logprobs": {"tokens": []}}, Refusal.LOGPROBS),
    ],
)
def test_completion_answers(choice: dict[str, Any], refusal: Refusal | None) -> None:
    assert refuse_answer(COMPLETIONS_PATH, {"choices": [choice]}) is refusal


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", " ", "user", "text", "stop", "today"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "content", "type", "text", "choices", "message", "n", "prompt"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "n", "logprobs", "modalities", "audio"]), anything))
def test_no_shape_of_a_request_raises(payload: dict[str, Any]) -> None:
    refuse_request(CHAT_PATH, payload)


@given(anything)
def test_no_shape_of_an_answer_raises(body: Any) -> None:
    refuse_answer(CHAT_PATH, body)
    refuse_answer(CHAT_PATH, {"choices": body})
