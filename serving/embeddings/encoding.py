"""What the gateway and an encoder say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metering.settlement import Rates
from metering.work import WorkRecord

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    request_id: str
    tenant: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request's vectors; its work is in the node's books already, ``records`` and ``rates`` are for its receipt."""

    vectors: Matrix
    """One row of length 1 for each text."""
    records: tuple[WorkRecord, ...]
    """One for each text, in their order."""
    rates: Rates


@dataclass(frozen=True, slots=True)
class TooLong:
    """Refused before anything was computed."""

    index: int
    tokens: int
    window_tokens: int


@dataclass(frozen=True, slots=True)
class EncoderModel:
    name: str
    dimension: int
    window_tokens: int
    config: dict[str, Any] | None
    """Hugging Face config, for the FLOP count."""


class EncoderGone(Exception):
    """The encoder's process died or cannot be reached; another may take its place."""


class RemoteEncoder(Protocol):
    """Cancelling a call gives up what the encoder has not begun."""

    async def describe(self) -> EncoderModel:
        """Waits until an encoder is ready."""

    async def encode(self, request: EncodeRequest) -> Encoded | TooLong:
        """Raises ``EncoderGone``."""
