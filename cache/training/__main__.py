"""``python -m cache.training``: writes ``cache/data/score.json`` and ``cache/data/calibration.json``.

Minutes on one core; the same files for the same sources and library versions.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from cache.calibration import Calibration, Label, threshold_for
from cache.embedders import load_encoder
from cache.score import sigmoid
from cache.training.fit import SEED, all_pairs, examples, fit, held_out, weights_of

OUT = Path(__file__).parent.parent / "data"
MIX = {"repeat": 0.5, "paraphrase": 1.0, "trap": 1.6, "mutation": 0.4}
"""Shares of the calibration set: four neighbours in seven are traps, and of the right ones two thirds say it in other
words. A log is kinder: most of its near neighbours are repeats. The exact tier takes those first, though, and what a
stream full of near duplicates leaves to the judge is about this hard."""
"""Narrowings are trained on but not calibrated with: an adjective put before any noun is seldom a real question."""
SIZE = 5600
"""Labels of one family depend on each other, so they count for less than as many of a log: one more reason why the
shipped calibration is called uncalibrated on your traffic."""


def main() -> None:
    data = examples(all_pairs(), load_encoder())
    log_odds = held_out(data)
    scale = LogisticRegression(C=1e6).fit(log_odds[:, None], data.right, sample_weight=weights_of(data))
    slope, shift = round(float(scale.coef_[0, 0]), 5), round(float(scale.intercept_[0]), 5)
    model = fit(data.rows, data.right, weights_of(data)) | {"slope": slope, "shift": shift}
    model["version"] = hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:8]
    probability = sigmoid(slope * log_odds + shift)

    pools: dict[str, list[Label]] = {kind: [] for kind in MIX}
    for pair, score in zip(data.pairs, probability, strict=True):
        if pair.kind in MIX:
            pools[pair.kind].append(Label(round(float(score), 5), pair.right))
    for pair, _ in data.refused:
        if pair.kind in MIX:
            pools[pair.kind].append(Label(0.0, pair.right))
    rng = random.Random(SEED)
    labels: list[Label] = []
    for kind, share in MIX.items():
        wanted = int(SIZE * share / sum(MIX.values()))
        pool = pools[kind]
        labels += rng.sample(pool, min(wanted, len(pool)))
    calibration = Calibration(
        tuple(labels), "families written for this project, scored by models that saw nothing of their domain", False
    )

    (OUT / "score.json").write_text(json.dumps(model, separators=(",", ":")) + "\n", "utf-8")
    (OUT / "calibration.json").write_text(json.dumps(calibration.as_dict(), separators=(",", ":")) + "\n", "utf-8")
    print(f"{len(data.pairs)} rows, {len(data.refused)} refused by guards; score version {model['version']}")
    for budget in (0.01, 0.02, 0.05, 0.1):
        threshold = threshold_for(labels, budget)
        line = [f"max_wrong {budget:.2f}: threshold {threshold:.4f}"]
        for kind in MIX:
            pool = pools[kind]
            line.append(f"{kind} {np.mean([label.score > threshold for label in pool]):.3f}")
        print("; served: ".join(line[:1]), "; ".join(line[1:]))


if __name__ == "__main__":
    main()
