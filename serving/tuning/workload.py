"""Workloads: when requests arrive and how long they are; text only where a file brought it.

A workload is columns, not objects: a million requests take some 30 MB.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from metering.errors import BadInput

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Workload:
    """Requests in order of arrival; every array has one entry a request.

    Raises:
        BadInput: no requests, columns of unlike length, arrivals out of order, a length below 1, a repeat of a
            request that comes later.
    """

    arrival_seconds: Floats
    """Since the start, ascending."""
    prompt_tokens: Integers
    output_tokens: Integers
    prefix_tokens: Integers
    """Of the prompt: tokens equal to the beginning of every other prompt that has some."""
    repeat_of: Integers
    """Index of an earlier request that this one equals word for word; -1: none."""
    texts: tuple[str, ...] | None = field(default=None, compare=False)
    name: str = ""
    timed: bool = True
    """False: nothing said when these requests arrive; until ``arriving`` says so, all do at 0."""

    def __post_init__(self) -> None:
        count = len(self.arrival_seconds)
        if count == 0:
            raise BadInput("a workload needs at least one request")
        columns = (self.prompt_tokens, self.output_tokens, self.prefix_tokens, self.repeat_of)
        if any(len(column) != count for column in columns) or (self.texts is not None and len(self.texts) != count):
            raise BadInput("the columns of a workload must be of one length")
        if self.arrival_seconds[0] < 0 or np.any(np.diff(self.arrival_seconds) < 0):
            raise BadInput("arrival times must be at least 0 and ascending")
        if self.prompt_tokens.min() < 1 or self.output_tokens.min() < 1:
            raise BadInput("prompts and answers have at least one token")
        if np.any(self.prefix_tokens < 0) or np.any(self.prefix_tokens > self.prompt_tokens):
            raise BadInput("a shared prefix is at least 0 tokens and at most the prompt")
        if np.any(self.repeat_of >= np.arange(count)):
            raise BadInput("a request can only repeat an earlier one")

    def __len__(self) -> int:
        return len(self.arrival_seconds)

    @property
    def span_seconds(self) -> float:
        """From the first arrival to the last."""
        return float(self.arrival_seconds[-1] - self.arrival_seconds[0])

    @property
    def rate_per_second(self) -> float:
        """Mean rate of arrivals; 0 where all come at once."""
        return (len(self) - 1) / self.span_seconds if self.span_seconds > 0 else 0.0

    def head(self, count: int) -> Workload:
        """The first ``count`` requests."""
        return replace(
            self,
            arrival_seconds=self.arrival_seconds[:count],
            prompt_tokens=self.prompt_tokens[:count],
            output_tokens=self.output_tokens[:count],
            prefix_tokens=self.prefix_tokens[:count],
            repeat_of=self.repeat_of[:count],
            texts=None if self.texts is None else self.texts[:count],
        )

    def arriving(self, arrival_seconds: Floats, how: str) -> Workload:
        """The same requests at these times. ``how`` is added to the name."""
        return replace(self, arrival_seconds=arrival_seconds, timed=True, name=f"{self.name}, {how}")

    def at_rate(self, rate_per_second: float) -> Workload:
        """The same requests with arrivals stretched to this mean rate.

        Raises:
            BadInput: a rate that is not positive, or arrivals that are all at once.
        """
        if not rate_per_second > 0:
            raise BadInput(f"the rate must be positive, got {rate_per_second} requests/s")
        if self.rate_per_second == 0:
            raise BadInput(
                "these requests all arrive at once: there is no rate to change; say how they arrive (--arrivals "
                "poisson), or use a closed loop"
            )
        first = self.arrival_seconds[0]
        arrivals = first + (self.arrival_seconds - first) * (self.rate_per_second / rate_per_second)
        return replace(self, arrival_seconds=arrivals)

    def describe(self) -> dict[str, Any]:
        """What a report says of its workload."""
        return {
            "name": self.name,
            "requests": len(self),
            "span_seconds": self.span_seconds,
            "rate_per_second": self.rate_per_second,
            "prompt_tokens_mean": float(self.prompt_tokens.mean()),
            "output_tokens_mean": float(self.output_tokens.mean()),
            "repeat_ratio": float((self.repeat_of >= 0).mean()),
            "shared_prefix_ratio": float((self.prefix_tokens > 0).mean()),
        }
