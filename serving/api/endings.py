"""How an answer ended, as the engine says it: `stop`, `length`, `tool_calls`, `content_filter`, or `refusal`."""

from __future__ import annotations

from typing import Any

REFUSAL = "refusal"
"""Ours, for an answer whose text is in `refusal` instead of `content`; engines end it with `stop`."""
_CUT = {"max_output_tokens": "length"}
"""Why a response is incomplete, in the words of chat completions."""


def endings_of(body: dict[str, Any]) -> list[str]:
    """Of a whole answer: of each choice, or of a response."""
    endings: list[str] = []
    for choice in body.get("choices") or ():
        if isinstance(choice, dict):
            endings += choice_endings(choice, choice.get("message"))
    cut = body.get("incomplete_details")
    if isinstance(cut, dict) and (reason := cut.get("reason")):
        endings.append(_CUT.get(reason, str(reason)))
    for item in body.get("output") or ():
        if isinstance(item, dict) and any(_is_refusal(part) for part in item.get("content") or ()):
            endings.append(REFUSAL)
    return endings


def choice_endings(choice: dict[str, Any], said: object) -> list[str]:
    """``said``: the choice's message, or in a stream its delta."""
    refused = isinstance(said, dict) and bool(said.get("refusal"))
    reason = choice.get("finish_reason")
    return [REFUSAL] * refused + ([str(reason)] if reason else [])


def _is_refusal(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == REFUSAL
