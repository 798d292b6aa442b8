"""The seam between storage and judgement: who decides whether a stored answer fits a question not asked before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored question near the one asked; same tenant, model, history and parameters already hold."""

    text: str
    """Last user text under which the answer was stored, NFC."""
    similarity: float
    """Cosine in [-1, 1], recomputed in FP32; never Redis's (1 + cosine) / 2."""
    entry_id: str = ""
    """Stable while the entry lives; per-entry policies keep their observations under it."""
    model: str = ""
    age_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """``serve`` is the decision; the rest says why, for metrics and headers."""

    serve: bool
    index: int
    """Position in the neighbours judged of the one served, or of the best refused; -1 when there was none."""
    score: float
    """Calibrated score in [0, 1] of that neighbour; 0 when a guard refused."""
    why: str
    """One of a bounded set of names."""
    guard: str | None = None
    """The guard that refused, where one did."""


class Judge(Protocol):
    """Guards, score and threshold. The version is part of the semantic index's name: mending it empties only that."""

    @property
    def version(self) -> str: ...

    async def judge(self, asked: str, neighbours: Sequence[Neighbour]) -> Verdict:
        """Decide over at most five neighbours, most similar first. Never raises for odd text."""
