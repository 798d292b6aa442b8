"""One answer in its two forms: a unary OpenAI body, and the SSE frames of a stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"

_CHUNK_OBJECTS = {"chat.completion": "chat.completion.chunk"}
_BODY_OBJECTS = {"chat.completion.chunk": "chat.completion"}
_IN_CHOICE_ONLY = frozenset({"message", "delta", "text", "index"})


def answer_to_sse(body: dict[str, Any], *, include_usage: bool) -> list[bytes]:
    """Frames of a unary body: role, each text field, the finish reason, then usage if asked for, then ``[DONE]``.

    Works for chat and for text completions, with any number of choices. ``body`` is not changed.
    """
    envelope = {
        name: value for name, value in body.items() if name not in ("choices", "usage", "object", "prompt_logprobs")
    }
    envelope["object"] = _CHUNK_OBJECTS.get(body.get("object", ""), body.get("object"))
    frames = []

    def emit(choices: list[dict[str, Any]], usage: Any = None) -> None:
        chunk = {**envelope, "choices": choices}
        if include_usage:
            chunk["usage"] = usage
        frames.append(b"data: " + orjson.dumps(chunk) + b"\n\n")

    for choice in body["choices"]:
        for part in _message_parts(choice) if "message" in choice else _text_parts(choice):
            emit([part])
    if include_usage:
        emit([], body.get("usage"))
    frames.append(DONE)
    return frames


def _text_parts(choice: dict[str, Any]) -> list[dict[str, Any]]:
    # One chunk: the client library's type wants a finish reason in each.
    return [{"index": 0, "text": "", "logprobs": None, **choice, "finish_reason": _finish(choice)}]


def _message_parts(choice: dict[str, Any]) -> list[dict[str, Any]]:
    index, message = choice.get("index", 0), choice["message"]
    parts = [_part(index, {"role": message.get("role", "assistant"), "content": ""})]
    # Reasoning comes before the content in every server's stream; clients show it as it comes.
    fields = sorted(
        (name for name, value in message.items() if name != "role" and value not in (None, [], {}, "")),
        key=lambda name: (not name.startswith("reasoning"), name != "content"),
    )
    for name in fields:
        value = message[name]
        if name == "tool_calls":
            value = [{"index": position, **call} for position, call in enumerate(value)]
        parts.append(_part(index, {name: value}, choice.get("logprobs") if name == "content" else None))
    last = _part(index, {})
    last.update({name: value for name, value in choice.items() if name not in _IN_CHOICE_ONLY and name != "logprobs"})
    last["finish_reason"] = _finish(choice)
    parts.append(last)
    return parts


def _part(index: int, delta: dict[str, Any], logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _finish(choice: dict[str, Any]) -> Any:
    return choice.get("finish_reason") or "stop"


class StreamAssembler:
    """Gathers the frames of a stream with one choice into the unary body, as they pass."""

    def __init__(self) -> None:
        self._envelope: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}
        self._text: dict[str, list[str]] = {}
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._other: dict[str, Any] = {}
        self._logprobs: list[Any] = []
        self._usage: Any = None
        self._done = False
        self._broken = False
        self._rest = b""

    def feed(self, frame: bytes) -> None:
        """Bytes as they come: whole events, several, or parts of one. Never raises."""
        data = (self._rest + frame).replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        for event in events:
            payload = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
            if payload and not self._broken:
                self._take(payload)

    def _take(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self._done = True
            return
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            self._broken = True
            return
        if self._done or not isinstance(chunk, dict) or chunk.get("error") is not None:
            self._broken = True
            return
        for name, value in chunk.items():
            if name not in ("choices", "usage") and value is not None:
                self._envelope.setdefault(name, value)
        if chunk.get("usage") is not None:
            self._usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                self._broken = True
                return
            self._take_choice(choice)

    def _take_choice(self, choice: dict[str, Any]) -> None:
        for name, value in choice.items():
            if name not in _IN_CHOICE_ONLY and name != "logprobs" and value is not None:
                self._choice[name] = value
        if choice.get("logprobs") is not None:
            self._logprobs.append(choice["logprobs"])
        if isinstance(choice.get("text"), str):
            self._text.setdefault("text", []).append(choice["text"])
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        self._choice.setdefault("message", True)
        for name, value in delta.items():
            if name == "tool_calls":
                for call in value or ():
                    self._take_call(call)
            elif name == "role":
                if value:
                    self._other["role"] = value
            elif isinstance(value, str):
                self._text.setdefault(name, []).append(value)
            elif value is not None:
                self._other[name] = value

    def _take_call(self, call: dict[str, Any]) -> None:
        gathered = self._tool_calls.setdefault(call.get("index", 0), {"type": "function", "function": {}})
        for name, value in call.items():
            if name not in ("index", "function") and value is not None:
                gathered[name] = value
        for name, value in (call.get("function") or {}).items():
            if isinstance(value, str):
                gathered["function"][name] = gathered["function"].get(name, "") + value

    def answer(self) -> dict[str, Any] | None:
        """The unary body; None where the stream did not end with a finish reason and ``[DONE]``, or held an error."""
        if not self._done or self._broken or self._rest.strip() or self._choice.get("finish_reason") is None:
            return None
        choice: dict[str, Any] = {"index": 0}
        text = {name: "".join(parts) for name, parts in self._text.items()}
        if self._choice.get("message"):
            message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, **self._other, **text}
            if self._tool_calls:
                message["tool_calls"] = [self._tool_calls[index] for index in sorted(self._tool_calls)]
            message["refusal"] = message["refusal"] or None
            if self._tool_calls or message["refusal"]:
                message["content"] = message["content"] or None
            choice["message"] = message
        else:
            choice["text"] = text.get("text", "")
        choice["logprobs"] = self._joined_logprobs()
        choice.update({name: value for name, value in self._choice.items() if name != "message"})
        body = {**self._envelope, "choices": [choice]}
        body["object"] = _BODY_OBJECTS.get(body.get("object", ""), body.get("object"))
        if self._usage is not None:
            body["usage"] = self._usage
        return body

    def _joined_logprobs(self) -> Any:
        if not self._logprobs:
            return None
        if len(self._logprobs) == 1:
            return self._logprobs[0]
        joined: dict[str, Any] = {}
        for part in self._logprobs:
            for name, value in part.items():
                if isinstance(value, list):
                    joined.setdefault(name, []).extend(value)
                elif value is not None:
                    joined[name] = value
        return joined


def sse_to_answer(frames: Iterable[bytes]) -> dict[str, Any] | None:
    """The unary body of a complete stream with one choice; None where it is incomplete or held an error."""
    assembler = StreamAssembler()
    for frame in frames:
        assembler.feed(frame)
    return assembler.answer()
