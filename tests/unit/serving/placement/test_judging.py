"""What the semantic tier is built of, and that it goes on with what earlier runs verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from cache.embedders.encoder import Matrix
from cache.evidence import VerifiedLabel
from cache.guards import GUARD_VERSION
from serving.cache_settings import CacheSettings
from serving.label_file import LabelFile
from serving.metrics import Metrics
from serving.placement.judging import Judgement, build_judgement


class Ones:
    """An encoder to which all texts are alike."""

    id = "ones"
    dimension = 4
    window_tokens = 256
    gains_to = 1

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [1 for _ in texts]

    def encode(self, texts: Sequence[str]) -> Matrix:
        return np.full((len(texts), self.dimension), 0.5, dtype=np.float32)


async def judgement(settings: CacheSettings, told: list[str]) -> Judgement:
    built = await build_judgement(settings, Metrics(CollectorRegistry()), told.append, load=lambda _: Ones())
    assert built is not None
    return built


async def test_a_threshold_that_was_tightened_is_so_after_a_restart(tmp_path: Path) -> None:
    settings = CacheSettings(tier="semantic", shadow_share=0.5, shadow_labels=tmp_path / "labels.jsonl")
    told: list[str] = []
    first = await judgement(settings, told)
    shipped = first.calibrator.threshold
    file = LabelFile(tmp_path / "labels.jsonl", version=first.labels_version)
    for label in [VerifiedLabel("served", (shipped + 1) / 2, False)] * 3:
        first.evidence.add(label)
        file.append(label)
    again = await judgement(settings, told)
    assert again.calibrator.threshold == first.calibrator.threshold > shipped
    assert again.calibrator.wrong_of_served() == (3, 3)


async def test_labels_of_another_judge_are_left_out_and_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    for _ in range(3):
        LabelFile(path, version="g0-s0:another").append(VerifiedLabel("served", 0.99, False))
    told: list[str] = []
    built = await judgement(CacheSettings(tier="semantic", shadow_labels=path), told)
    assert built.calibrator.live_labels == ()
    (line,) = [line for line in told if str(path) in line]
    assert "3 labels of another judge or embedder" in line
    assert f"g{GUARD_VERSION}-" in built.labels_version
    assert built.labels_version.endswith(":ones")
