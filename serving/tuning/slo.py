"""The promise: bounds on latency at a percentile, as ``ttft_p95<=0.5``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from metering.errors import BadInput

Metric = Literal["ttft", "itl", "e2e"]
PERCENTILES = (50, 95, 99)
_FORM = re.compile(r"^\s*(ttft|itl|e2e)_p(50|95|99)\s*<=?\s*([0-9.eE+-]+)\s*(ms|s)?\s*$")


@dataclass(frozen=True, slots=True)
class Bound:
    metric: Metric
    percentile: int
    seconds: float

    @property
    def key(self) -> str:
        """Name of the figure that it bounds in a summary."""
        return f"{self.metric}_p{self.percentile}_seconds"

    def __str__(self) -> str:
        return f"{self.metric}_p{self.percentile}<={self.seconds:g}s"


@dataclass(frozen=True, slots=True)
class Slo:
    """All bounds must hold. Without any, everything that answers is good."""

    bounds: tuple[Bound, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Slo:
        """``ttft_p95<=500ms``; a bare number is seconds.

        Raises:
            BadInput: another form, a bound that is not positive, or a figure bounded twice.
        """
        bounds = tuple(_parse(text) for text in texts)
        if len({bound.key for bound in bounds}) != len(bounds):
            raise BadInput("an SLO bounds the same figure twice: give each once")
        return cls(bounds)

    def excesses(self, figures: Mapping[str, Any]) -> tuple[float, ...]:
        """Of each bound: seen / allowed - 1; at most 0 where it holds. A figure that is missing breaks its bound."""
        return tuple(
            float("inf") if figures.get(bound.key) is None else float(figures[bound.key]) / bound.seconds - 1
            for bound in self.bounds
        )

    def met(self, figures: Mapping[str, Any]) -> bool:
        return all(excess <= 0 for excess in self.excesses(figures))

    def worst_excess(self, figures: Mapping[str, Any]) -> float:
        """The largest excess; 0 without bounds."""
        return max(self.excesses(figures), default=0.0)

    def request_met(self, ttft: float | None, itl: float | None, e2e: float) -> bool:
        """Whether one request kept every bound: what goodput counts. An answer of one token has no ``itl``."""
        values = {"ttft": float("inf") if ttft is None else ttft, "itl": itl or 0.0, "e2e": e2e}
        return all(values[bound.metric] <= bound.seconds for bound in self.bounds)

    def __str__(self) -> str:
        return ", ".join(map(str, self.bounds)) or "none"


def _parse(text: str) -> Bound:
    found = _FORM.match(text)
    try:
        seconds = float(found[3]) if found else 0.0
    except ValueError:
        seconds = 0.0
    if found is None or not 0 < seconds < float("inf"):
        raise BadInput(f"SLO {text!r} is not understood: write ttft_p95<=500ms, itl_p95<=0.05 or e2e_p99<=3s")
    metric: Any = found[1]
    return Bound(metric, int(found[2]), seconds / 1000 if found[4] == "ms" else seconds)
