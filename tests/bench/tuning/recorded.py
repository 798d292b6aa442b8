"""Drawn workloads for the controller, alike in every run: load steps, a change of mix, bursts, overload, quiet."""

from __future__ import annotations

import numpy as np

from serving.tuning.lengths import Lengths
from serving.tuning.synthetic import Synthetic
from serving.tuning.workload import Floats, Workload

Piece = tuple[Floats, Workload]


def piece(rate: float, seconds: float, start: float, seed: int, prompt: float = 80, output: float = 60) -> Piece:
    """Poisson arrivals at ``rate`` for exactly ``seconds``."""
    drawn = Synthetic(
        max(1, round(rate * seconds)),
        rate,
        Lengths("lognormal", prompt, 0.5),
        Lengths("lognormal", output, 0.5),
        seed=seed,
    ).workload()
    return drawn.arrival_seconds * (seconds / drawn.arrival_seconds[-1]) + start, drawn


def joined(*pieces: Piece) -> Workload:
    """One after the other."""
    return Workload(
        np.concatenate([arrival for arrival, _ in pieces]),
        np.concatenate([drawn.prompt_tokens for _, drawn in pieces]),
        np.concatenate([drawn.output_tokens for _, drawn in pieces]),
        np.concatenate([drawn.prefix_tokens for _, drawn in pieces]),
        np.concatenate([drawn.repeat_of for _, drawn in pieces]),
    )


RECORDED = {
    "load times four and back": joined(piece(2, 100, 0, 1), piece(8, 150, 100, 2), piece(2, 100, 250, 3)),
    "mix changes to long answers": joined(piece(6, 120, 0, 4), piece(3, 150, 120, 5, prompt=400, output=150)),
    "bursts": Synthetic(
        1200, 5.0, Lengths("lognormal", 80, 0.5), Lengths("lognormal", 60, 0.5), arrivals="gamma", burstiness=3.0
    ).workload(),
    "overload": joined(piece(20, 150, 0, 6)),
    "quiet": joined(piece(0.5, 200, 0, 7)),
}
