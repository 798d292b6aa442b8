"""A response in OpenAI's form, whole and as its events."""

from __future__ import annotations

from typing import Any

import orjson

WORDS = ("Hello", " there", ".")
USAGE = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 6,
}


def response(status: str = "completed", model: str = "m") -> dict[str, Any]:
    part = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": [part]}
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": model,
        "output": [message], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": USAGE,
    }  # fmt: skip


def events(status: str = "completed", model: str = "m") -> list[dict[str, Any]]:
    started = response("in_progress", model) | {"output": [], "usage": None}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    made: list[dict[str, Any]] = [{"type": "response.created", "response": started}]
    made += [{"type": "response.output_text.delta", "delta": word, **place} for word in WORDS]
    made.append({"type": "response.output_text.done", "text": "".join(WORDS), **place})
    made.append({"type": f"response.{status}", "response": response(status, model)})
    return [{**event, "sequence_number": number} for number, event in enumerate(made)]


def frame(event: dict[str, Any]) -> bytes:
    return b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"
