"""Query-key pairs that attention works on, in closed form; a sliding window clamps each context."""

from __future__ import annotations


def causal_pairs(tokens: int, cached_tokens: int, window: int | None = None) -> int:
    """Query-key pairs of ``tokens`` positions after ``cached_tokens``, each seeing itself and what came before."""
    return _pairs_below(cached_tokens + tokens, window) - _pairs_below(cached_tokens, window)


def full_pairs(tokens: int, cached_tokens: int, window: int | None = None) -> int:
    """Query-key pairs as vLLM bills one chunk: tokens x context, the context clamped to the window."""
    context = cached_tokens + tokens
    return tokens * (context if window is None else min(context, window))


def decode_pairs(tokens: int, first_context_tokens: int, window: int | None = None) -> int:
    """Positions attended to over decode steps with contexts c, c+1, ..."""
    return causal_pairs(tokens, first_context_tokens - 1, window)


def _pairs_below(positions: int, window: int | None) -> int:
    """Sum of min(p, window) for p = 1 .. positions."""
    if window is None or positions <= window:
        return positions * (positions + 1) // 2
    return window * (window + 1) // 2 + (positions - window) * window
