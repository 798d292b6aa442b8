"""The stream of OpenAI's Responses API: named events, the last of which holds the whole response and its usage."""

from __future__ import annotations

import re
from typing import Any

RESPONSES = "/v1/responses"
_ENDS = (b"event: response.completed\n", b"event: response.incomplete\n", b"event: response.failed\n")
_TYPE = re.compile(rb'"type":\s*"(response\.[a-z_.]+|error)"')


def plain_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Token counts by the names of chat completions, whichever API's they are."""
    if "input_tokens" not in usage:
        return usage
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens")
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": {"cached_tokens": cached or 0},
    }


def named(frame: bytes) -> bytes:
    """The frame with its event's name, where an upstream's has lost it."""
    found = _TYPE.search(frame) if frame.startswith(b"data: ") else None
    return frame if found is None else b"event: " + found.group(1) + b"\n" + frame


def is_last(frame: bytes) -> bool:
    """Whether a (named) frame ends a response."""
    return frame.startswith(_ENDS)
