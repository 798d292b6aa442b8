"""Reading and judging a request body before anything is spent on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.api.responses import ResponsesBody
from serving.embeddings.body import EmbeddingBody
from serving.engines.response_events import RESPONSES
from serving.errors import BodyTooLarge, InvalidRequest, RequestTimeout
from serving.tenancy.tenant import Priority

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

DRAINED_BYTES = 256 * 1024 * 1024
"""A body that is too large is read (and dropped) up to this, so that its sender gets to read the 413."""


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole request body.

    Raises:
        BodyTooLarge: above ``max_bytes``.
        ClientGone: the connection closed in mid-body.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= max_bytes:
        return body
    parts = [body]
    size = len(body)
    more = message.get("more_body", False)
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= max_bytes:
            parts.append(chunk)
        else:
            parts.clear()
            if size > DRAINED_BYTES:
                break
        more = message.get("more_body", False)
    if size > max_bytes:
        raise BodyTooLarge(f"The request body is larger than {max_bytes} bytes.")
    return b"".join(parts)


async def drain(receive: Receive) -> None:
    """Read, and drop, what a refused sender still sends, as far as that is bearable: it could not read the refusal
    else. Raises ``ClientGone``.
    """
    with contextlib.suppress(BodyTooLarge):
        await read_body(receive, 0)


@contextlib.asynccontextmanager
async def arriving_within(seconds: float) -> AsyncIterator[None]:
    """Raises ``RequestTimeout`` where the body that is read inside takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RequestTimeout("The request body did not arrive in time.") from None


class _Lenient(BaseModel):
    """Fields that the gateway itself reads; what else is there is the engine's to judge."""

    model_config = ConfigDict(extra="allow", strict=True)


class StreamOptions(_Lenient):
    include_usage: bool | None = None


class _Sampled(_Lenient):
    model: str = Field(min_length=1, max_length=512)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None


class ChatMessage(_Lenient):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class ChatBody(_Sampled):
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    tools: list[dict[str, Any]] | None = None


class CompletionBody(_Sampled):
    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = None


BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/embeddings": EmbeddingBody,
    RESPONSES: ResponsesBody,
}


def parse_body(path: str, raw: bytes) -> dict[str, Any]:
    """The payload as sent, once it is known to be sound.

    Raises:
        InvalidRequest: not JSON, not an object, or a field that is wrong; names the field.
    """
    try:
        payload = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(payload, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    try:
        BODIES[path].model_validate(payload)
    except ValidationError as error:
        first, location = _plainest(error)
        param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
        if first["type"] == "missing":
            raise InvalidRequest(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            ) from None
        raise InvalidRequest(f"Invalid '{param}': {first['msg']}.", param=param, code="invalid_value") from None
    return payload


def _plainest(error: ValidationError) -> tuple[Any, list[int | str]]:
    """The first error and its place; of a union's branches the one that got furthest into the value."""

    def place(found: Any) -> list[int | str]:
        # unions report the branch in the location; clients know only their own keys and indices
        return [part for part in found["loc"] if isinstance(part, int) or part in _KNOWN or len(found["loc"]) == 1]

    errors = error.errors(include_url=False, include_input=False, include_context=False)
    start = place(errors[0])
    within = [found for found in errors if place(found)[: len(start)] == start]
    best = max(within, key=lambda found: len(place(found)))
    return best, place(best)


_KNOWN = frozenset(
    name
    for body in (ChatBody, CompletionBody, EmbeddingBody, ResponsesBody, ChatMessage, StreamOptions)
    for name in body.model_fields
)


_CHARACTERS_PER_TOKEN = 4
"""Rule of thumb for English text; OpenAI's help page "What are tokens and how to count them?"."""


_ATTACHMENTS = ("image_url", "input_image", "input_audio", "audio_url", "video_url", "file", "input_file")
"""Types of a message's parts that are no text: the length of their base64 says nothing about their tokens."""
_TOKENS_PER_ATTACHMENT = 765
"""An image of 1024 x 1024 in high detail: 85 and 4 tiles of 170; OpenAI's guide "Images and vision"."""


def estimated_prompt_tokens(payload: dict[str, Any]) -> int:
    """Of the prompt or the messages: given token ids are counted, text at four characters a token, and each attachment
    as one image.
    """
    ids, characters = 0, 0
    rest: list[Any] = [payload.get(name) for name in ("messages", "prompt", "tools", "input", "instructions")]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, int):
            ids += 1
        elif isinstance(value, list):
            rest += value
        elif isinstance(value, dict):
            if value.get("type") in _ATTACHMENTS:
                ids += _TOKENS_PER_ATTACHMENT
            else:
                rest += value.values()
    return ids + -(-characters // _CHARACTERS_PER_TOKEN)


_TIERS = {"priority": Priority.INTERACTIVE, "flex": Priority.BATCH}


def asked_priority(header: str | None, payload: dict[str, Any], granted: Priority) -> Priority:
    """The class asked for by `x-wattgate-priority`, else by `service_tier`, never above ``granted``.

    Raises:
        InvalidRequest: a class that there is not.
    """
    if header is not None:
        try:
            return Priority(header.strip().lower()).at_most(granted)
        except ValueError:
            raise InvalidRequest(
                f"x-wattgate-priority must be one of {', '.join(Priority)}.", param="x-wattgate-priority"
            ) from None
    tier = payload.get("service_tier")
    return _TIERS[tier].at_most(granted) if isinstance(tier, str) and tier in _TIERS else granted
