"""When requests arrive: seeded random processes of a mean rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from metering.errors import BadInput
from serving.tuning.workload import Floats

Arrivals = Literal["poisson", "gamma", "diurnal"]
DAY_SECONDS = 86_400.0
_GRID_POINTS = 4096


@dataclass(frozen=True, slots=True)
class ArrivalProcess:
    """
    Raises:
        BadInput: a value out of its range.
    """

    rate_per_second: float
    arrivals: Arrivals = "poisson"
    burstiness: float = 2.0
    """``gamma``: coefficient of variation of the gaps; 1 is Poisson, above it bursts."""
    day_seconds: float = DAY_SECONDS
    """``diurnal``: one period."""
    amplitude: float = 0.8
    """``diurnal``: the rate swings between (1 - amplitude) and (1 + amplitude) of the mean. It begins at the mean and
    rises: a part of a day that began at night would have a fraction of the rate that was asked for."""

    def __post_init__(self) -> None:
        if not 0 < self.rate_per_second < float("inf"):
            raise BadInput(f"the rate must be positive, got {self.rate_per_second} requests/s")
        if not self.burstiness > 0:
            raise BadInput(f"burstiness is a coefficient of variation above 0, got {self.burstiness}")
        if not 0 <= self.amplitude <= 1 or not self.day_seconds > 0:
            raise BadInput("a diurnal rate needs an amplitude of 0..1 and a positive period")

    def part_of_a_day(self, count: int) -> float | None:
        """The share of one period that so many requests last, where that is less than one: the peak, the night or
        both are not in them, and their mean is not the day's. None where there is no such lack.
        """
        share = count / self.rate_per_second / self.day_seconds
        return share if self.arrivals == "diurnal" and share < 1 else None

    def draw(self, random: np.random.Generator, count: int) -> Floats:
        """Seconds from the start, ascending."""
        mean_gap = 1 / self.rate_per_second
        if self.arrivals == "gamma":
            shape = 1 / self.burstiness**2
            return np.cumsum(random.gamma(shape, mean_gap / shape, count))
        unit = np.cumsum(random.exponential(1.0, count))
        if self.arrivals == "poisson":
            return unit * mean_gap
        # an inhomogeneous Poisson process is a unit one seen through the inverse of its cumulative rate
        # (time-rescaling theorem): rate(t) = mean (1 + amplitude sin(2 pi t / day))
        phase = np.linspace(0.0, 1.0, _GRID_POINTS)
        cumulative = phase + self.amplitude * (1 - np.cos(2 * np.pi * phase)) / (2 * np.pi)
        days, rest = np.divmod(unit * mean_gap / self.day_seconds, 1.0)
        arrivals: Floats = (days + np.interp(rest, cumulative, phase)) * self.day_seconds
        return arrivals
