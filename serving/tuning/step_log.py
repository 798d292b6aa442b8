"""An engine's steps in a file of the run's folder: what an engine model is fitted to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from metering.work import EngineSteps

NAME = "steps.jsonl"
_MOST_BYTES = 2 * 1024 * 1024
"""Of a file, about six hours of one replica; the one before it is kept too."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Totals of ``steps`` steps that followed each other (1: a single step). The model is affine, so sums fit it."""

    sequence_steps: float
    """Decoding sequences, summed over the steps."""
    prompt_tokens: float
    context_tokens: float
    """Context read by decoding sequences, summed over the steps."""
    seconds: float
    steps: float = 1.0


class StepLog:
    """Appends; written by all replicas of a node, each line at once. A full disk loses lines, never a request."""

    def __init__(self, folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._path = folder / NAME
        self._most_bytes = most_bytes

    def add(self, steps: EngineSteps) -> None:
        """Steps of an engine that does not tell what they held are left out."""
        seconds = steps.ended_seconds - steps.started_seconds
        if steps.prefill_tokens + steps.decode_tokens == 0 or seconds <= 0:
            return
        line = {
            "model": steps.model,
            "steps": steps.steps,
            "sequence_steps": steps.decode_tokens,
            "prompt_tokens": steps.prefill_tokens,
            "context_tokens": steps.context_tokens,
            "seconds": seconds,
        }
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, orjson.dumps(line) + b"\n")
                full = os.fstat(file).st_size > self._most_bytes
            finally:
                os.close(file)
            if full:
                os.replace(self._path, self._path.with_suffix(".old"))
        except OSError:
            return


def read_steps(folder: Path) -> dict[str, list[StepRecord]]:
    """Records by model, oldest first; a damaged line is passed over."""
    found: dict[str, list[StepRecord]] = {}
    for path in ((folder / NAME).with_suffix(".old"), folder / NAME):
        try:
            lines = path.read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                values = orjson.loads(line)
                model = str(values.pop("model"))
                record = StepRecord(**{name: float(value) for name, value in values.items()})
            except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
                continue
            found.setdefault(model, []).append(record)
    return found
