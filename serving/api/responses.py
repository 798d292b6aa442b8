"""OpenAI's Responses API: its body, and its stream of named events, into whose last the receipt goes.

Nothing is kept here between requests: an engine's own store would be one replica's, without end and open to
every tenant. What needs one is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from serving.api.endings import endings_of
from serving.api.frames import DONE, payload_of
from serving.engines.response_events import is_last, plain_usage

NOT_KEPT = "this gateway keeps no responses: send the conversation so far as `input`"


def _unset(value: Any) -> Any:
    if value:
        raise PydanticCustomError("not_kept", "it cannot be used, because " + NOT_KEPT)
    return value


class ResponsesBody(BaseModel):
    """Fields that the gateway itself reads; what else is there is the engine's to judge."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str = Field(min_length=1, max_length=512)
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1)]
    stream: bool | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    user: str | None = None
    # what follows needs something kept at the server
    background: Annotated[bool | None, AfterValidator(_unset)] = None
    conversation: Annotated[Any, AfterValidator(_unset)] = None
    previous_response_id: Annotated[str | None, AfterValidator(_unset)] = None
    prompt: Annotated[Any, AfterValidator(_unset)] = None


@dataclass(slots=True)
class EventsEnd:
    """``StreamEnd`` for the events of a response: the last one, with the usage in it, is kept back."""

    usage: dict[str, Any] | None = None
    endings: list[str] = field(default_factory=list)
    done: bool = False
    error: dict[str, Any] | None = None
    _last: bytes | None = None

    def feed(self, frame: bytes) -> tuple[bytes, ...]:
        """Frames to send now. An engine's error is kept in ``error`` instead."""
        if is_last(frame):
            self.done, self._last = True, frame
            response = (_payload(frame) or {}).get("response") or {}
            self.endings = endings_of(response)
            if isinstance(response.get("usage"), dict):
                self.usage = plain_usage(response["usage"])
            return ()
        if frame.startswith((b"event: error\n", b'data: {"error"')):
            told = _payload(frame) or {}
            self.error = told["error"] if isinstance(told.get("error"), dict) else told
            return ()
        return () if frame == DONE else (frame,)

    def last(self, receipt: dict[str, Any] | None) -> tuple[bytes, ...]:
        """The kept event with the receipt in its usage."""
        payload = None if self._last is None else _payload(self._last)
        if self._last is None or payload is None or not isinstance(payload.get("response"), dict):
            return ()
        usage = dict(payload["response"].get("usage") or {})
        if receipt is not None:
            usage["wattgate"] = receipt
        payload["response"]["usage"] = usage
        head = self._last[: self._last.index(b"\n") + 1]
        return (head + b"data: " + orjson.dumps(payload) + b"\n\n",)


def _payload(frame: bytes) -> dict[str, Any] | None:
    return payload_of(frame[frame.index(b"\n") + 1 :] if frame.startswith(b"event: ") else frame)
