"""How long and how many answers a request asks for: by the fields that its endpoint knows, and no others.

Bodies may hold fields that nobody has judged, for the engine's sake. None of these may stand for a judged one: what is
reserved for a request, and booked of it, follows from these figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.engines.response_events import RESPONSES

_LENGTHS = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    "/v1/completions": ("max_tokens",),
    RESPONSES: ("max_output_tokens",),
}
"""The first that is given counts."""
_COMPLETIONS = "/v1/completions"
_WITH_CHOICES = ("/v1/chat/completions", _COMPLETIONS)


def asked_tokens(path: str, payload: Mapping[str, Any]) -> int | None:
    """The length that the client allows each answer; None where it leaves that open."""
    return next((value for name in _LENGTHS.get(path, ()) if (value := _positive(payload.get(name)))), None)


def asked_choices(path: str, payload: Mapping[str, Any]) -> int:
    """Answers to each prompt."""
    return (_positive(payload.get("n")) if path in _WITH_CHOICES else None) or 1


def asked_prompts(path: str, payload: Mapping[str, Any]) -> int:
    """Prompts in one request: completions may have several, as texts or as token ids."""
    prompt = payload.get("prompt") if path == _COMPLETIONS else None
    return len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else 1


def asked_sequences(path: str, payload: Mapping[str, Any]) -> int:
    """Answers that the engine makes for one request: each of so long."""
    return asked_prompts(path, payload) * asked_choices(path, payload)


def _positive(value: Any) -> int | None:
    # a bool is an int to isinstance
    return value if type(value) is int and value > 0 else None
