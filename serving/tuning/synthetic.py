"""Seeded synthetic workloads: arrivals, lengths, shared prefixes and repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metering.errors import BadInput
from serving.tuning.arrivals import DAY_SECONDS, ArrivalProcess, Arrivals
from serving.tuning.lengths import Lengths
from serving.tuning.workload import Workload


@dataclass(frozen=True, slots=True)
class Synthetic:
    """What to draw; the same values and seed give the same workload.

    Raises:
        BadInput: a value out of its range.
    """

    requests: int
    rate_per_second: float
    prompt: Lengths
    output: Lengths
    arrivals: Arrivals = "poisson"
    burstiness: float = 2.0
    """This and the next two: see :class:`ArrivalProcess`."""
    day_seconds: float = DAY_SECONDS
    amplitude: float = 0.8
    prefix_tokens: int = 0
    prefix_ratio: float = 0.0
    """Share of the requests whose prompt begins with the common prefix of ``prefix_tokens``."""
    repeat_ratio: float = 0.0
    """Share of the requests that equal an earlier one."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise BadInput(f"a workload needs at least one request, got {self.requests}")
        self.process()  # refuses its own values
        for name, ratio in (("shared prefix", self.prefix_ratio), ("repeat", self.repeat_ratio)):
            if not 0 <= ratio <= 1:
                raise BadInput(f"the {name} share is a ratio of 0..1, got {ratio}")
        if self.prefix_tokens < 0:
            raise BadInput(f"the shared prefix has at least 0 tokens, got {self.prefix_tokens}")

    def process(self) -> ArrivalProcess:
        """How requests arrive."""
        return ArrivalProcess(self.rate_per_second, self.arrivals, self.burstiness, self.day_seconds, self.amplitude)

    def workload(self) -> Workload:
        """Draw it."""
        random = np.random.default_rng(self.seed)
        count = self.requests
        arrivals = self.process().draw(random, count)
        prompt, output = self.prompt.draw(random, count), self.output.draw(random, count)
        shares = random.random(count) < self.prefix_ratio
        prefix = np.where(shares, np.minimum(self.prefix_tokens, prompt), 0)
        index = np.arange(count)
        repeats = (random.random(count) < self.repeat_ratio) & (index > 0)
        earlier = (random.random(count) * index).astype(np.int64)
        repeat_of = np.where(repeats, earlier, -1)
        # a repeat of a repeat is one of the original; originals come first, so one pass in order is enough
        for i in np.flatnonzero(repeats):
            original = repeat_of[i]
            if repeat_of[original] >= 0:
                original = repeat_of[i] = repeat_of[original]
            prompt[i], output[i], prefix[i] = prompt[original], output[original], prefix[original]
        name = f"{self.arrivals}, {self.rate_per_second:g} requests/s, seed {self.seed}"
        return Workload(arrivals, prompt, output, prefix, repeat_of, name=name)
