"""A comparison and its cosine as numbers: what the score is a function of."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cache.guards.comparison import Comparison
from cache.language.alignment import DERIVED, ECHO, JOINED, SAME, SYNONYM, TYPO, rarity
from cache.language.analysis import Analysis, Unit

FEATURES = (
    "cosine",
    "matched",  # units that mean the same, pairs
    "share",  # matched units over all, Dice
    "same", "synonym", "derived", "typo", "echo",  # matches by kind, share of all matches
    "left_min", "left_max",  # unmatched content units on the side with fewer, with more
    "weight_min", "weight_max",  # the same, weighted by rarity
    "light_min", "light_max",  # unmatched light words
    "named",  # unmatched names and rare words
    "head",  # the first content words: 1 aligned with each other, 0.5 one of them elsewhere, 0 neither
    "premodified",  # unmatched words directly beside a matched one, no preposition between: a narrower noun
    "complements",  # unmatched words after "of", or before one that only this side has: the quarter of a game
    "slot",  # one word left on either side, in the same place with the same preposition, all else matched
    "added",  # unmatched words after a preposition, where the other side has none unmatched: a condition
    "characters",  # Dice of character trigrams of all words
    "content_characters",  # of the unmatched content words
    "length_ratio", "length",  # tokens: shorter over longer; logarithm of the longer
    "frame_same", "frame_none", "frame_soft",
    "frame_define_howto",
    "quantifiers",  # differing soft quantifiers
    "directions",  # differing directional words
    "functions",  # Jaccard of other small words
    "modality", "person", "tense",  # marked on one side only
    "inversions",  # pairs of matched units in the other order, share
    "english", "identical",
)  # fmt: skip
"""Order is part of the score's format."""


def features(pair: Comparison, cosine: float) -> NDArray[np.float64]:
    """Shape (len(FEATURES),); finite for any texts."""
    a, b = pair.a, pair.b
    matches = pair.alignment.matches
    kinds = Counter(match.kind for match in matches)
    matched = len(matches)
    total = max(matched, 1)
    units = len(a.units) + len(b.units)
    left = sorted((pair.left_a, pair.left_b), key=len)
    weights = sorted(_weight(side, a.language) for side in (pair.left_a, pair.left_b))
    light = sorted(sum(1 for unit in side if unit.light) for side in (pair.alignment.left_a, pair.alignment.left_b))
    longer, shorter = max(len(a.plain), len(b.plain), 1), min(len(a.plain), len(b.plain))
    frames_a, frames_b = set(a.frames), set(b.frames)
    frame_same = bool(frames_a & frames_b) or (not frames_a and not frames_b)
    row = np.array(
        [
            cosine,
            min(matched, 8),
            2 * matched / max(units, 1) if units else 0.0,
            (kinds[SAME] + kinds[JOINED]) / total,
            kinds[SYNONYM] / total,
            kinds[DERIVED] / total,
            kinds[TYPO] / total,
            kinds[ECHO] / total,
            min(len(left[0]), 6),
            min(len(left[1]), 8),
            weights[0],
            weights[1],
            min(light[0], 4),
            min(light[1], 4),
            min(sum(1 for side in left for unit in side if unit.entity or unit.rare), 4),
            _head(pair),
            min(_premodified(pair.left_a, pair.a) + _premodified(pair.left_b, pair.b), 3),
            min(_complements(pair), 3),
            _slot(pair),
            _added(pair),
            _dice(_trigrams(a.plain), _trigrams(b.plain)),
            _best_characters(pair.left_a, pair.left_b),
            shorter / longer,
            float(np.log1p(longer)),
            frame_same,
            not frame_same and (not frames_a or not frames_b),
            not frame_same and bool(frames_a) and bool(frames_b),
            frames_a | frames_b == {"define", "howto"},
            min(sum(((a.quantifiers - b.quantifiers) + (b.quantifiers - a.quantifiers)).values()), 4),
            min(sum(((a.directions - b.directions) + (b.directions - a.directions)).values()), 6),
            _jaccard(a.functions, b.functions),
            bool(a.modality) != bool(b.modality),
            a.persons != b.persons,
            a.tense != b.tense,
            _inversions(pair),
            a.language == "en",
            pair.folded,
        ],
        dtype=np.float64,
    )
    return np.nan_to_num(row)


def _head(pair: Comparison) -> float:
    if not pair.a.units or not pair.b.units:
        return 1.0
    first_a, first_b = pair.a.units[0], pair.b.units[0]
    if any(match.a is first_a and match.b is first_b for match in pair.alignment.matches):
        return 1.0
    found = any(match.a is first_a or match.b is first_b for match in pair.alignment.matches)
    return 0.5 if found else 0.0


def _premodified(left: tuple[Unit, ...], text: Analysis) -> int:
    loose = {unit.place for unit in left}
    count = 0
    for unit, following in pairwise(text.units):
        beside = following.place == unit.place + 1 and not following.role
        count += beside and (unit.place in loose) != (following.place in loose)
    return count


_OF = frozenset({"of", "de", "von", "del", "du", "des"})


def _complements(pair: Comparison) -> int:
    """Counted where the other side has no word of its own: else one stands in the place of the other."""
    if pair.left_a and pair.left_b:
        return 0
    left, text = (pair.left_a, pair.a) if pair.left_a else (pair.left_b, pair.b)
    loose = {unit.place for unit in left}
    count = sum(unit.role in _OF for unit in left)
    for unit, following in pairwise(text.units):
        count += unit.place in loose and following.place not in loose and following.role in _OF
    return count


def _slot(pair: Comparison) -> bool:
    if len(pair.left_a) != 1 or len(pair.left_b) != 1:
        return False
    a, b = pair.left_a[0], pair.left_b[0]
    return (
        a.role == b.role and len(pair.a.units) == len(pair.b.units) and pair.a.units.index(a) == pair.b.units.index(b)
    )


def _added(pair: Comparison) -> int:
    if pair.left_a and pair.left_b:
        return 0
    return min(sum(1 for unit in pair.left_a or pair.left_b if unit.role not in ("", "of", "de")), 3)


def _weight(units: tuple[Unit, ...], language: str) -> float:
    return min(sum(0.3 + rarity(unit, language) for unit in units), 6.0)


def _trigrams(words: tuple[str, ...]) -> Counter[str]:
    return Counter(padded[i : i + 3] for word in words for padded in (f" {word} ",) for i in range(len(padded) - 2))


def _dice(a: Counter[str], b: Counter[str]) -> float:
    total = sum(a.values()) + sum(b.values())
    return 2 * sum((a & b).values()) / total if total else 0.0


def _best_characters(left_a: tuple[Unit, ...], left_b: tuple[Unit, ...]) -> float:
    """Mean over the unmatched words of the shorter side of the likeness of the best partner; 0 without partners."""
    small, large = sorted((left_a, left_b), key=len)
    if not small:
        return 0.0
    grams = [_trigrams((unit.norm,)) for unit in large]
    return float(np.mean([max(_dice(_trigrams((unit.norm,)), other) for other in grams) for unit in small]))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0


def _inversions(pair: Comparison) -> float:
    places = sorted((match.a.place, match.b.place) for match in pair.alignment.matches)
    order = [second for _, second in places]
    pairs = len(order) * (len(order) - 1) // 2
    if not pairs:
        return 0.0
    return sum(order[i] > order[j] for i in range(len(order)) for j in range(i + 1, len(order))) / pairs
