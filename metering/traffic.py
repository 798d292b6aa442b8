"""Bytes moved between memory and compute by a forward pass: weights once per pass, the KV cache per sequence.

Decode is bound by these bytes, not by FLOPs; activations stay in caches and are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from metering.errors import BadInput, require_tokens
from metering.pairs import decode_pairs
from metering.shape import ModelArchitecture


@dataclass(frozen=True, slots=True)
class BytesMoved:
    """``weights`` of ONE forward pass, whoever shares it; ``kv_read`` and ``kv_write`` of all the tokens counted."""

    weights: float
    kv_read: float
    kv_write: float

    def total(self, passes: float = 1.0) -> float:
        """Bytes over ``passes`` forward passes, each reading the weights once. A sequence that shares each of its
        n passes with b others gives ``passes = n / b``."""
        return self.weights * passes + self.kv_read + self.kv_write


def weight_read_bytes(architecture: ModelArchitecture, tokens: int, *, weight_bytes_each: float) -> float:
    """Weight bytes of one forward pass over ``tokens`` tokens of any sequences; a mixture of experts reads more
    of its experts the more tokens there are (balanced routing: min(tokens x k, experts))."""
    _positive("bytes of a weight", weight_bytes_each)
    return architecture.matmul_parameters_read(require_tokens("tokens", tokens, 1)) * weight_bytes_each


def prefill_bytes(
    architecture: ModelArchitecture,
    tokens: int,
    cached_tokens: int = 0,
    *,
    weight_bytes_each: float,
    kv_bytes_each: float,
) -> BytesMoved:
    """Bytes of one prefill pass that computes ``tokens`` after ``cached_tokens`` (cached excluded from ``tokens``).

    Keys and values are written for each token computed, and read once over the whole context.

    Raises:
        BadInput: a negative number of tokens, or a width that is not positive.
    """
    require_tokens("prompt tokens", tokens)
    require_tokens("cached tokens", cached_tokens)
    if tokens == 0:
        return BytesMoved(0.0, 0.0, 0.0)
    context = cached_tokens + tokens
    return BytesMoved(
        weights=weight_read_bytes(architecture, tokens, weight_bytes_each=weight_bytes_each),
        kv_read=_kv(architecture, kv_bytes_each, lambda window: context if window is None else min(context, window)),
        kv_write=_kv(architecture, kv_bytes_each, lambda window: tokens),
    )


def decode_bytes(
    architecture: ModelArchitecture,
    tokens: int,
    first_context_tokens: int,
    *,
    weight_bytes_each: float,
    kv_bytes_each: float,
) -> BytesMoved:
    """Bytes of ``tokens`` decode steps of one sequence, contexts c, c+1, ...; ``weights`` are those of one step.

    Raises:
        BadInput: a negative number of tokens, a context below 1, or a width that is not positive.
    """
    require_tokens("decode tokens", tokens)
    if tokens == 0:
        return BytesMoved(0.0, 0.0, 0.0)
    require_tokens("the context of a decode step", first_context_tokens, 1)
    return BytesMoved(
        weights=weight_read_bytes(architecture, 1, weight_bytes_each=weight_bytes_each),
        kv_read=_kv(architecture, kv_bytes_each, lambda window: decode_pairs(tokens, first_context_tokens, window)),
        kv_write=_kv(architecture, kv_bytes_each, lambda window: tokens),
    )


def _kv(architecture: ModelArchitecture, bytes_each: float, positions: Callable[[int | None], int]) -> float:
    _positive("bytes of a KV element", bytes_each)
    return bytes_each * sum(
        group.count * group.attention.kv_elements * positions(group.attention.window) for group in architecture.layers
    )


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise BadInput(f"{name} must be positive, got {value}")
