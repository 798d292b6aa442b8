"""Server-sent event frames: relayed as bytes, opened only where the receipt goes in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.api.endings import choice_endings

DONE = b"data: [DONE]\n\n"
_DATA = b"data: "
_REFUSES = b'"refusal":"'
_WORTH_PARSING = re.compile(rb'"finish_reason":\s*"|"refusal":\s*"|"usage":\s*\{|^data: \{\s*"error"')
"""What makes a frame more than one more token; tokens are the common case and are not parsed."""


def frame_of(payload: Any) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def payload_of(frame: bytes) -> dict[str, Any] | None:
    """The JSON object of a frame; None for ``[DONE]``, comments and anything that is no object."""
    if not frame.startswith(_DATA):
        return None
    try:
        payload = orjson.loads(frame[len(_DATA) :])
    except orjson.JSONDecodeError:
        return None
    return payload if isinstance(payload, dict) else None


@dataclass(slots=True)
class StreamEnd:
    """Passes frames on and keeps back the last ones, into which usage and receipt go.

    The engine is always asked for usage. A client that did not ask for it gets the usage, with the
    receipt, on its last content chunk instead of in a chunk of its own.
    """

    include_usage: bool
    """Whether the client asked for a usage chunk."""
    usage: dict[str, Any] | None = None
    endings: list[str] = field(default_factory=list)
    """Of each choice; a choice that refuses says so once a frame, besides how it ended."""
    done: bool = False
    error: dict[str, Any] | None = None
    _held: bytes | None = None

    def feed(self, frame: bytes) -> tuple[bytes, ...]:
        """Frames to send now (none, one or two). An engine's error frame is kept in ``error`` instead."""
        if frame.startswith(DONE[:-2]):
            self.done = True
            return ()
        # the shape that engines give a token, told apart by substrings; the pattern costs ten times as much
        unfinished = frame.count(b'"finish_reason":null')
        plain = b'"usage"' not in frame and _REFUSES not in frame
        if unfinished and plain and unfinished == frame.count(b'"finish_reason"'):
            return self._release(frame)
        if not _WORTH_PARSING.search(frame):
            return self._release(frame)
        payload = payload_of(frame)
        if payload is None:
            return self._release(frame)
        if "error" in payload and "choices" not in payload:
            self.error = payload["error"] if isinstance(payload["error"], dict) else {"message": str(payload["error"])}
            return ()
        choices = payload.get("choices") or ()
        usage = payload.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
            if not choices:
                return self._keep(frame) if self.include_usage else ()
        for choice in choices:
            self.endings += choice_endings(choice, choice.get("delta"))
        finished = any(choice.get("finish_reason") for choice in choices)
        return self._keep(frame) if finished else self._release(frame)

    def _keep(self, frame: bytes) -> tuple[bytes, ...]:
        held, self._held = self._held, frame
        return () if held is None else (held,)

    def _release(self, frame: bytes) -> tuple[bytes, ...]:
        held, self._held = self._held, None
        return (frame,) if held is None else (held, frame)

    def last(self, receipt: dict[str, Any] | None) -> tuple[bytes, ...]:
        """The kept frame with usage and receipt in it, and ``[DONE]``."""
        held, self._held = self._held, None
        if held is None:
            return (DONE,)
        payload = payload_of(held)
        if payload is not None and (self.usage is not None or receipt is not None):
            usage = dict(self.usage or {})
            if receipt is not None:
                usage["wattgate"] = receipt
            payload["usage"] = usage
            held = frame_of(payload)
        return (held, DONE)


def stream_error(error: dict[str, Any] | None, engine_ready: bool) -> dict[str, Any]:
    """The last frame of a stream that cannot be completed; no ``[DONE]`` follows it.

    The engine's own words are passed on only where they are about the request.
    """
    code = (error or {}).get("code")
    if engine_ready and error is not None and (str(code).startswith("4") or error.get("type") == "BadRequestError"):
        message, kind = str(error.get("message")), "invalid_request_error"
    elif engine_ready:
        message, kind = "The engine ended this answer before it was complete.", "server_error"
    else:
        message, kind = "The engine died while answering; send the request again.", "server_error"
    return {
        "error": {"message": message, "type": kind, "param": None, "code": "engine_error" if kind[0] == "s" else code}
    }
