"""From the configuration to the semantic tier: what embeds, what judges, and the threshold it judges by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cache.calibration import Calibration, Calibrator, shipped_calibration
from cache.embedders import ThreadedEmbedder, load_encoder
from cache.embedders.encoder import Encoder
from cache.embedding import Embedder
from cache.evidence import KEPT, Evidence
from cache.judge import ConformalPolicy, EntryPolicy, GuardedJudge, Policy, ThresholdPolicy
from cache.vcache import VCachePolicy
from serving.cache_settings import CacheSettings
from serving.label_file import LabelFile
from serving.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Judgement:
    """Everything the semantic tier needs beside a store."""

    embedder: Embedder
    judge: GuardedJudge
    evidence: Evidence
    vcache: VCachePolicy | None = None
    """With that policy only: it learns from labels, too."""
    answer_embedder: Embedder | None = None
    """For answers that are compared off the path of requests; None: as for questions."""

    @property
    def calibrator(self) -> Calibrator:
        return self.evidence.calibrator

    @property
    def labels_version(self) -> str:
        """Scores of another judge or embedder cannot be mixed with these."""
        return f"{self.judge.version}:{self.embedder.id}"


def build_policy(settings: CacheSettings, calibrator: Calibrator) -> tuple[Policy, VCachePolicy | None]:
    if settings.policy == "conformal":
        return ConformalPolicy(calibrator), None
    if settings.policy == "threshold":
        return ThresholdPolicy(settings.score_threshold), None
    vcache = VCachePolicy(settings.max_wrong)
    return EntryPolicy(vcache), vcache


def read_calibration(settings: CacheSettings) -> Calibration:
    """Raises OSError and ValueError, naming the file."""
    if settings.calibration is None:
        return shipped_calibration()
    try:
        return Calibration.from_bytes(settings.calibration.read_bytes())
    except ValueError as error:
        raise ValueError(f"{settings.calibration}: {error}") from None


def label_file(settings: CacheSettings, version: str) -> LabelFile | None:
    return None if settings.shadow_labels is None else LabelFile(settings.shadow_labels, version=version)


def replay_labels(file: LabelFile, evidence: Evidence, tell: Callable[[str], None]) -> None:
    """What earlier runs of this installation verified, as if it came now. Raises OSError."""
    labels, others = file.read()
    evidence.replay(labels[-KEPT:])
    if others:
        tell(f"{file.path}: {others} labels of another judge or embedder than {file.version} are left out")


async def build_judgement(
    settings: CacheSettings,
    metrics: Metrics,
    tell: Callable[[str], None],
    *,
    load: Callable[[str], Encoder] = load_encoder,
) -> Judgement | None:
    """Loads off the event loop. None where it fails: told and counted, and the exact tiers go on without."""
    try:
        encoder, calibration = await asyncio.to_thread(lambda: (load(settings.embedder), read_calibration(settings)))
        embedder = ThreadedEmbedder(encoder, deadline_seconds=settings.embed_deadline_seconds)
        prior = shipped_calibration() if calibration.on_your_traffic else None
        calibrator = Calibrator(calibration, settings.max_wrong, prior=prior)
        policy, vcache = build_policy(settings, calibrator)
        judgement = Judgement(embedder, GuardedJudge(policy), Evidence(calibrator), vcache, embedder.patient())
        await asyncio.to_thread(judgement.judge.warm_up)
        labels = label_file(settings, judgement.labels_version)
        if labels is not None:
            await asyncio.to_thread(replay_labels, labels, judgement.evidence, tell)
    except Exception as error:
        # whatever a model file or a library may raise: the cache is optional, answering is not
        first = (str(error).splitlines() or [""])[0]
        tell(f"without the semantic cache: {type(error).__name__}: {first}")
        metrics.add("wattgate_cache_faults_total", 1, "semantic", "not_loaded")
        return None
    tell(f"semantic cache: {encoder.id}, max_wrong {settings.max_wrong:g}, {calibrator.note}")
    return judgement
