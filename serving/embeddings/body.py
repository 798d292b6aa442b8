"""The body of ``POST /v1/embeddings``, as OpenAI's API reference has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

MOST_INPUTS = 2048
"""Texts in one request; OpenAI's API reference."""


def _texts(value: Any) -> Any:
    """Raises for what is no text, saying what to send instead."""
    if isinstance(value, list) and value and isinstance(value[0], int | list) and not isinstance(value[0], bool):
        raise PydanticCustomError(
            "token_ids",
            "token ids are not accepted, because they are of the client's tokenizer and not of this model's: send text "
            "(with LangChain: check_embedding_ctx_length=False)",
        )
    if value in ("", []) or (isinstance(value, list) and "" in value):
        raise PydanticCustomError("empty_text", "there is no embedding of an empty text: leave it out")
    if isinstance(value, list) and len(value) > MOST_INPUTS:
        raise PydanticCustomError("too_many", "at most {most} texts a request: send several", {"most": MOST_INPUTS})
    return value


Text = Annotated[str, Field(min_length=1)]


class EmbeddingBody(BaseModel):
    """What may be asked; anything else is named and refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(min_length=1, max_length=512)
    input: Annotated[Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)], BeforeValidator(_texts)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
