"""The learned score: shallow trees and a logistic model over the features, as JSON, evaluated in numpy.

Trained by ``python -m cache.training`` on hand-written families of questions; no pickle, no library at run time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.features import FEATURES

Floats = NDArray[np.float64]
DEPTH = 3
"""Every tree is padded to this depth, so that all are walked together."""


@dataclass(frozen=True)
class Score:
    """Mean of the log-odds of both models, then a logistic calibration: a probability that one answer fits both."""

    version: str
    feature: NDArray[np.int64]
    """Trees x (2**DEPTH - 1): the feature that each inner node asks; children of i are 2i+1 and 2i+2."""
    cut: Floats
    """Same shape: goes left where value <= cut."""
    leaf: Floats
    """Trees x 2**DEPTH."""
    base: float
    centre: Floats
    weight: Floats
    """Logistic model on (features - centre); the scale is inside the weight."""
    intercept: float
    slope: float
    shift: float
    """Probability = sigmoid(slope * log-odds + shift)."""

    def __call__(self, values: Floats) -> float:
        """``values`` of shape (len(FEATURES),); result in [0, 1]."""
        return float(self.many(values[None, :])[0])

    def many(self, rows: Floats) -> Floats:
        return sigmoid(self.slope * self.log_odds(rows) + self.shift)

    def log_odds(self, rows: Floats) -> Floats:
        """Uncalibrated; shape (n,)."""
        linear = (rows - self.centre) @ self.weight + self.intercept
        return np.asarray((linear + self._trees(rows)) / 2, dtype=np.float64)

    def _trees(self, rows: Floats) -> Floats:
        trees = np.arange(self.feature.shape[0])
        node = np.zeros((rows.shape[0], len(trees)), dtype=np.int64)
        for _ in range(DEPTH):
            asked = self.feature[trees, node]
            right = np.take_along_axis(rows, asked, axis=1) > self.cut[trees, node]
            node = 2 * node + 1 + right
        return np.asarray(self.base + self.leaf[trees, node - (2**DEPTH - 1)].sum(axis=1), dtype=np.float64)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Score:
        """Raises ValueError where the model was trained on other features."""
        if tuple(data["features"]) != FEATURES:
            raise ValueError("score model: its features are not those of this version; run `python -m cache.training`")

        def floats(name: str) -> Floats:
            return np.asarray(data[name], dtype=np.float64)

        return cls(
            version=str(data["version"]),
            feature=np.asarray(data["feature"], dtype=np.int64),
            cut=floats("cut"),
            leaf=floats("leaf"),
            base=float(data["base"]),
            centre=floats("centre"),
            weight=floats("weight"),
            intercept=float(data["intercept"]),
            slope=float(data["slope"]),
            shift=float(data["shift"]),
        )


def shipped_score() -> Score:
    return Score.from_json(json.loads(resources.files("cache").joinpath("data", "score.json").read_text("utf-8")))


def sigmoid(value: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(value, -40.0, 40.0))), dtype=np.float64)
