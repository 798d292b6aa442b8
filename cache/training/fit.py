"""Features of all pairs, the model, its held-out scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from cache.embedders.encoder import Encoder
from cache.features import FEATURES, features
from cache.guards import compare, refusal
from cache.guards.comparison import Comparison
from cache.language.alignment import align
from cache.language.lexicon import Lexicon, lexicon
from cache.score import DEPTH
from cache.training.augment import mutations, narrowings, repeats
from cache.training.families import Pair, family_pairs, load_families

Floats = NDArray[np.float64]
SEED = 20260101
FORGOTTEN = 0.3
"""Share of synonym groups hidden in a second look at each written pair: what a domain with other words is like."""
FOLDS = 8
_WEIGHTS = {"paraphrase": 1.0, "trap": 1.0, "repeat": 0.3, "mutation": 0.3, "narrowing": 0.15}
_RISES = frozenset(
    {"head", "cosine", "share", "characters", "content_characters", "frame_same", "functions", "identical"}
)
_FALLS = frozenset(
    {"left_min", "left_max", "weight_min", "weight_max", "added", "premodified", "complements", "slot",
     "light_min", "light_max", "named",
     "frame_soft", "frame_define_howto", "quantifiers", "directions", "modality", "person", "tense", "inversions"}
)  # fmt: skip
"""Signs that are known beforehand: imposed, so that the trees cannot learn an accident of the data."""


@dataclass(frozen=True)
class Examples:
    """One row a pair that no guard refused, and the pairs refused for the tally."""

    pairs: list[Pair]
    rows: Floats
    right: NDArray[np.bool_]
    domains: NDArray[np.str_]
    thinned: NDArray[np.bool_]
    refused: list[tuple[Pair, bool]]
    """(pair, thinned)."""


def all_pairs(seed: int = SEED) -> list[Pair]:
    """Written pairs, repeats and mutations; the same for the same seed."""
    rng = random.Random(seed)
    out: list[Pair] = []
    for family in load_families():
        out += family_pairs(family)
        out += repeats(family, rng)
        out += mutations(family, rng)
        out += narrowings(family, rng)
    return out


@lru_cache(maxsize=64)
def thinned_lexicon(language: str, turn: int) -> Lexicon:
    """The lexicon with a share of its synonym groups forgotten."""
    words = lexicon(language)
    rng = random.Random(f"{language}:{turn}")
    groups = sorted({number for numbers in words.groups.values() for number in numbers})
    gone = frozenset(rng.sample(groups, int(FORGOTTEN * len(groups))))
    return replace(words, groups={key: numbers - gone for key, numbers in words.groups.items()})


def examples(pairs: Sequence[Pair], encoder: Encoder) -> Examples:
    texts = sorted({text for pair in pairs for text in (pair.a, pair.b)})
    vectors = dict(zip(texts, encoder.encode(texts), strict=True))
    kept: list[tuple[Pair, Floats, bool]] = []
    refused: list[tuple[Pair, bool]] = []
    for number, pair in enumerate(pairs):
        cosine = float(vectors[pair.a] @ vectors[pair.b])
        comparison = compare(pair.a, pair.b)
        looks = [(comparison, False)]
        if comparison.words is not None and pair.kind in ("paraphrase", "trap"):
            looks.append((_thin(comparison, number % 16), True))
        for look, thin in looks:
            if refusal(look) is None:
                kept.append((pair, features(look, cosine), thin))
            else:
                refused.append((pair, thin))
    return Examples(
        pairs=[pair for pair, _, _ in kept],
        rows=np.array([row for _, row, _ in kept]),
        right=np.array([pair.right for pair, _, _ in kept]),
        domains=np.array([pair.domain for pair, _, _ in kept]),
        thinned=np.array([thin for _, _, thin in kept]),
        refused=refused,
    )


def _thin(comparison: Comparison, turn: int) -> Comparison:
    words = thinned_lexicon(comparison.a.language, turn)
    return Comparison(comparison.a, comparison.b, words, align(comparison.a, comparison.b, words))


def fit(rows: Floats, right: NDArray[np.bool_], weights: Floats) -> dict[str, Any]:
    """Both models, as the JSON that ``Score`` reads, without the final calibration (slope 1, shift 0)."""
    trees = HistGradientBoostingClassifier(
        max_depth=DEPTH, max_iter=120, learning_rate=0.06, l2_regularization=5.0, min_samples_leaf=20, max_leaf_nodes=8,
        early_stopping=False, random_state=SEED,
        monotonic_cst=[1 if name in _RISES else -1 if name in _FALLS else 0 for name in FEATURES],
    )  # fmt: skip
    trees.fit(rows, right, sample_weight=weights)
    scaler = StandardScaler().fit(rows)
    linear = LogisticRegression(C=0.3, max_iter=2000).fit(scaler.transform(rows), right, sample_weight=weights)
    feature, cut, leaf = zip(*(_flatten(step[0].nodes) for step in trees._predictors), strict=True)
    return {
        "features": list(FEATURES),
        "feature": [list(map(int, row)) for row in feature],
        "cut": [[round(float(value), 6) for value in row] for row in cut],
        "leaf": [[round(float(value), 6) for value in row] for row in leaf],
        "base": round(float(np.ravel(trees._baseline_prediction)[0]), 6),
        "centre": [round(float(value), 6) for value in scaler.mean_],
        "weight": [round(float(value), 6) for value in linear.coef_[0] / scaler.scale_],
        "intercept": round(float(linear.intercept_[0]), 6),
        "slope": 1.0,
        "shift": 0.0,
    }


def _flatten(nodes: Any) -> tuple[list[int], list[float], list[float]]:
    """A tree padded to DEPTH levels: a leaf above the last level is repeated below itself."""
    inner = 2**DEPTH - 1
    feature, cut, leaf = [0] * inner, [0.0] * inner, [0.0] * (inner + 1)

    def walk(node: int, place: int, level: int) -> None:
        current = nodes[node]
        if level == DEPTH:
            leaf[place - inner] = float(current["value"])
        elif current["is_leaf"]:
            for child in (2 * place + 1, 2 * place + 2):
                walk(node, child, level + 1)
        else:
            feature[place], cut[place] = int(current["feature_idx"]), float(current["num_threshold"])
            walk(int(current["left"]), 2 * place + 1, level + 1)
            walk(int(current["right"]), 2 * place + 2, level + 1)

    walk(0, 0, 0)
    return feature, cut, leaf


def weights_of(data: Examples) -> Floats:
    """A written pair counts 1 (a thinned look a half), a generated one less: the written ones are closer to life."""
    kinds = np.array([_WEIGHTS[pair.kind] for pair in data.pairs])
    return np.asarray(np.where(data.thinned, 0.5, 1.0) * kinds, dtype=np.float64)


def held_out(data: Examples) -> Floats:
    """Log-odds of each row from a model that saw nothing of its domain."""
    from cache.score import Score

    weights = weights_of(data)
    out = np.zeros(len(data.right))
    for train, test in GroupKFold(FOLDS).split(data.rows, data.right, data.domains):
        model = Score.from_json({**fit(data.rows[train], data.right[train], weights[train]), "version": "0"})
        out[test] = model.log_odds(data.rows[test])
    return out
