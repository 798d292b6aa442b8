"""Seeded synthetic workloads: arrivals, lengths, shared prefixes and repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from metering.errors import BadInput
from serving.tuning.lengths import Lengths
from serving.tuning.workload import Floats, Workload

Arrivals = Literal["poisson", "gamma", "diurnal"]
_GRID_POINTS = 4096
_DAY_SECONDS = 86_400.0


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
    """``gamma``: coefficient of variation of the gaps; 1 is Poisson, above it bursts."""
    day_seconds: float = _DAY_SECONDS
    """``diurnal``: one period."""
    amplitude: float = 0.8
    """``diurnal``: the rate swings between (1 - amplitude) and (1 + amplitude) of the mean, lowest at the start."""
    prefix_tokens: int = 0
    prefix_ratio: float = 0.0
    """Share of the requests whose prompt begins with the common prefix of ``prefix_tokens``."""
    repeat_ratio: float = 0.0
    """Share of the requests that equal an earlier one."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise BadInput(f"a workload needs at least one request, got {self.requests}")
        if not 0 < self.rate_per_second < float("inf"):
            raise BadInput(f"the rate must be positive, got {self.rate_per_second} requests/s")
        if not self.burstiness > 0:
            raise BadInput(f"burstiness is a coefficient of variation above 0, got {self.burstiness}")
        if not 0 <= self.amplitude <= 1 or not self.day_seconds > 0:
            raise BadInput("a diurnal rate needs an amplitude of 0..1 and a positive period")
        for name, ratio in (("shared prefix", self.prefix_ratio), ("repeat", self.repeat_ratio)):
            if not 0 <= ratio <= 1:
                raise BadInput(f"the {name} share is a ratio of 0..1, got {ratio}")
        if self.prefix_tokens < 0:
            raise BadInput(f"the shared prefix has at least 0 tokens, got {self.prefix_tokens}")

    def workload(self) -> Workload:
        """Draw it."""
        random = np.random.default_rng(self.seed)
        count = self.requests
        arrivals = self._arrivals(random)
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

    def _arrivals(self, random: np.random.Generator) -> Floats:
        count, mean_gap = self.requests, 1 / self.rate_per_second
        if self.arrivals == "gamma":
            shape = 1 / self.burstiness**2
            return np.cumsum(random.gamma(shape, mean_gap / shape, count))
        unit = np.cumsum(random.exponential(1.0, count))
        if self.arrivals == "poisson":
            return unit * mean_gap
        # an inhomogeneous Poisson process is a unit one seen through the inverse of its cumulative rate
        # (time-rescaling theorem): rate(t) = mean (1 - amplitude cos(2 pi t / day))
        phase = np.linspace(0.0, 1.0, _GRID_POINTS)
        cumulative = phase - self.amplitude * np.sin(2 * np.pi * phase) / (2 * np.pi)
        days, rest = np.divmod(unit * mean_gap / self.day_seconds, 1.0)
        arrivals: Floats = (days + np.interp(rest, cumulative, phase)) * self.day_seconds
        return arrivals
