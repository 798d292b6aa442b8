"""The bodies of answers, as `/openapi.json` tells them: what clients may rely on; engines add fields of their own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from metering.receipt import Receipt


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class Error(_Open):
    message: str
    type: str
    param: str | None
    """Field or header that is wrong."""
    code: str | None
    """For programs; does not change with the message."""


class ErrorEnvelope(_Open):
    """Every error of every endpoint."""

    error: Error


class Usage(_Open):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = None
    wattgate: Receipt
    """What the answer cost: energy, carbon, FLOPs, MFU."""


class ChatCompletion(_Open):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage


class TextCompletion(_Open):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage


class ResponseUsage(_Open):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    wattgate: Receipt


class ResponseObject(_Open):
    id: str
    object: Literal["response"]
    status: str
    output: list[dict[str, Any]]
    usage: ResponseUsage


class Embedding(_Open):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers, or base64 of little-endian float32 where that was asked for."""


class EmbeddingList(_Open):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelCard(_Open):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None


class ModelList(_Open):
    object: Literal["list"]
    data: list[ModelCard]


class Feedback(BaseModel):
    """Whether an answer from the cache was right."""

    model_config = ConfigDict(extra="allow", strict=True)

    good: bool = Field()
