"""Length distributions as a user writes them: ``128``, ``uniform:10-200``, ``lognormal:220,0.8``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metering.errors import BadInput
from serving.tuning.workload import Integers

_FORMS = "a number as 128, uniform:10-200, or lognormal:MEAN,SPREAD as lognormal:220,0.8"


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens. ``a`` and ``b``: the value; low and high; or mean and coefficient of variation."""

    kind: Literal["fixed", "uniform", "lognormal"]
    a: float
    b: float = 0.0

    @classmethod
    def parse(cls, text: str, name: str) -> Lengths:
        """
        Raises:
            BadInput: not one of the forms, or lengths below one token.
        """
        kind, _, rest = text.strip().rpartition(":")
        try:
            if kind in ("", "fixed"):
                made = cls("fixed", float(rest))
            elif kind == "uniform":
                low, high = rest.split("-")
                made = cls("uniform", float(low), float(high))
            elif kind == "lognormal":
                mean, spread = rest.split(",")
                made = cls("lognormal", float(mean), float(spread))
            else:
                raise ValueError
        except ValueError:
            raise BadInput(f"{name} {text!r} is not a length distribution: use {_FORMS}") from None
        if not (math.isfinite(made.a) and math.isfinite(made.b)) or made.a < 1 or made.b < 0:
            raise BadInput(f"{name} {text!r}: lengths are at least one token")
        if made.kind == "uniform" and made.b < made.a:
            raise BadInput(f"{name} {text!r}: the upper end is below the lower one")
        return made

    @property
    def mean(self) -> float:
        return (self.a + self.b) / 2 if self.kind == "uniform" else self.a

    def draw(self, random: np.random.Generator, count: int) -> Integers:
        """``count`` whole lengths, each at least 1."""
        if self.kind == "fixed":
            return np.full(count, round(self.a), dtype=np.int64)
        if self.kind == "uniform":
            return random.integers(round(self.a), round(self.b) + 1, count, dtype=np.int64)
        # mean m and coefficient of variation c: sigma^2 = ln(1 + c^2), mu = ln m - sigma^2 / 2
        variance = math.log1p(self.b**2)
        drawn = random.lognormal(math.log(self.a) - variance / 2, math.sqrt(variance), count)
        lengths: Integers = np.maximum(1, np.rint(drawn)).astype(np.int64)
        return lengths
