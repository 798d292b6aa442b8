"""What may be stored and looked up. Each rule is one line of a table; the first that refuses names itself."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cache.identity import CHAT_PATH, COMPLETIONS_PATH
from cache.time_sensitivity import time_sensitive


class Refusal(StrEnum):
    """Why not; the whole set, so it can label a metric."""

    PATH = "path"
    NO_STORE = "no_store"
    SEVERAL_CHOICES = "several_choices"
    LOGPROBS = "logprobs"
    TOKEN_IDS = "token_ids"
    NOT_TEXT = "not_text"
    EMPTY_PROMPT = "empty_prompt"
    TIME_SENSITIVE = "time_sensitive"
    # Semantic tier only.
    NO_TEXT = "no_text"
    TEMPERATURE = "temperature"
    INVISIBLE = "invisible"
    WINDOW = "window"
    # Answers.
    STATUS = "status"
    ERROR_BODY = "error_body"
    MALFORMED = "malformed"
    INCOMPLETE = "incomplete"
    FINISH_REASON = "finish_reason"
    EMPTY_ANSWER = "empty_answer"
    TOOL_CALLS = "tool_calls"
    MODEL_REFUSED = "model_refused"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class Limits:
    max_entry_bytes: int = 256 * 1024
    """Greatest stored answer, as JSON."""
    semantic_temperature: float = 1.0
    """Hotter requests are kept out of the semantic tier. 1 is what OpenAI takes when the field is absent."""
    semantic_characters: int = 4096
    """Longer texts are never tokenised: no encoder window in use holds them."""


def _several(payload: Mapping[str, Any]) -> bool:
    return payload.get("n") not in (None, 1) or payload.get("best_of") not in (None, 1)


def _logprobs(payload: Mapping[str, Any]) -> bool:
    # Completions take a count, where 0 still asks for the chosen token's.
    asked = (payload.get(name) for name in ("logprobs", "top_logprobs", "prompt_logprobs"))
    return any(value is not None and value is not False for value in asked)


def _token_ids(payload: Mapping[str, Any]) -> bool:
    return bool(payload.get("return_token_ids") or payload.get("return_tokens_as_token_ids"))


def _not_text(payload: Mapping[str, Any]) -> bool:
    modalities = payload.get("modalities")
    if payload.get("audio") or (modalities is not None and modalities != ["text"]):
        return True
    if "messages" not in payload:
        return not isinstance(payload.get("prompt"), str) or bool(payload.get("prompt_embeds"))
    messages = payload["messages"]
    if not isinstance(messages, list):
        return True
    return any(not _text_content(message) for message in messages)


def _text_content(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    content = message.get("content")
    if content is None or isinstance(content, str):
        return not message.get("audio")
    return isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") in ("text", "refusal") for part in content
    )


def last_text(payload: Mapping[str, Any]) -> str:
    """Text of the last message (all its text parts), or the prompt; empty where there is none."""
    if "messages" not in payload:
        prompt = payload.get("prompt")
        return prompt if isinstance(prompt, str) else ""
    messages = payload["messages"]
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return ""
    content = messages[-1].get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _blank(text: str) -> bool:
    """Nothing visible: empty, white space, or only format and control characters."""
    return all(character.isspace() or unicodedata.category(character)[0] == "C" for character in text)


_REQUEST_RULES: tuple[tuple[Refusal, Callable[[Mapping[str, Any]], bool]], ...] = (
    (Refusal.SEVERAL_CHOICES, _several),
    (Refusal.LOGPROBS, _logprobs),
    (Refusal.TOKEN_IDS, _token_ids),
    (Refusal.NOT_TEXT, _not_text),
    (Refusal.EMPTY_PROMPT, lambda payload: _blank(last_text(payload))),
    (Refusal.TIME_SENSITIVE, lambda payload: time_sensitive(last_text(payload))),
)


def refuse_request(path: str, payload: Mapping[str, Any]) -> Refusal | None:
    """Why this request takes no part in the cache at all; None when it does."""
    if path not in (CHAT_PATH, COMPLETIONS_PATH):
        return Refusal.PATH
    return next((refusal for refusal, applies in _REQUEST_RULES if applies(payload)), None)


_INVISIBLE_ALLOWED = frozenset("\t\n\r")


def _invisible(text: str) -> bool:
    """Characters that a reader does not see and an encoder drops, but that a model reads: a place to hide orders."""
    return not text.isprintable() and any(
        unicodedata.category(character) in ("Cc", "Cf", "Cn", "Co", "Cs") and character not in _INVISIBLE_ALLOWED
        for character in text
    )


def refuse_semantic(payload: Mapping[str, Any], text: str | None, limits: Limits) -> Refusal | None:
    """Why a request stays out of the semantic tier; ``text`` is its identity's. The embedder judges its window."""
    if text is None or _blank(text):
        return Refusal.NO_TEXT
    temperature = payload.get("temperature")
    if temperature is not None and not (
        isinstance(temperature, int | float) and temperature <= limits.semantic_temperature
    ):
        return Refusal.TEMPERATURE
    if len(text) > limits.semantic_characters:
        return Refusal.WINDOW
    return Refusal.INVISIBLE if _invisible(text) else None


def refuse_answer(path: str, body: Any) -> Refusal | None:
    """Why a complete unary OpenAI body of status 200 may not be stored; None when it may."""
    if not isinstance(body, dict):
        return Refusal.MALFORMED
    if body.get("error") is not None:
        return Refusal.ERROR_BODY
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Refusal.MALFORMED
    if len(choices) != 1:
        return Refusal.SEVERAL_CHOICES
    choice = choices[0]
    if choice.get("finish_reason") != "stop":
        return Refusal.FINISH_REASON
    if choice.get("logprobs") is not None:
        return Refusal.LOGPROBS
    return _refuse_text(choice) if path == COMPLETIONS_PATH else _refuse_message(choice)


def _refuse_text(choice: dict[str, Any]) -> Refusal | None:
    text = choice.get("text")
    if not isinstance(text, str):
        return Refusal.MALFORMED
    return Refusal.EMPTY_ANSWER if _blank(text) else None


def _refuse_message(choice: dict[str, Any]) -> Refusal | None:
    message = choice.get("message")
    if not isinstance(message, dict):
        return Refusal.MALFORMED
    if message.get("tool_calls") or message.get("function_call"):
        return Refusal.TOOL_CALLS
    if message.get("refusal"):
        return Refusal.MODEL_REFUSED
    content = message.get("content")
    if message.get("audio") or not (content is None or isinstance(content, str)):
        return Refusal.NOT_TEXT
    return Refusal.EMPTY_ANSWER if content is None or _blank(content) else None
