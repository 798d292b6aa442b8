"""Shadow verification: labels from comparing answers, never on the client's path."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from cache.calibration import Calibration, Calibrator
from cache.control import Outcome
from cache.embedders import HashEmbedder
from cache.entry import CachedAnswer
from cache.evidence import Evidence, VerifiedLabel
from cache.identity import Address
from cache.judge import EntryPolicy, Policy, ThresholdPolicy
from cache.judgement import Neighbour
from cache.lookup import CacheRequest, Lookup
from cache.observer import Loss
from cache.store import StoreUnavailable
from cache.vcache import VCachePolicy
from serving.grey_zone import VERIFIED
from serving.label_file import LabelFile
from serving.metrics import Metrics
from serving.own_calls import OwnCalls
from serving.shadow import ShadowVerifier
from tests.unit.serving.conftest import House

BODY = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Press the red button."}}]}'


def body(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def looked_up(score: float, *, hit: bool) -> Lookup:
    request = CacheRequest("a", "/v1/chat/completions", {}, "m", ("m",), 0.0)
    answer = CachedAnswer(Address("0" * 32, "1" * 64), "t", "m", "m", 0.0, 1.0, BODY)
    return Lookup(
        request,
        Outcome.HIT_SEMANTIC if hit else Outcome.MISS,
        "semantic",
        answer=answer if hit else None,
        score=score,
        similarity=0.9,
        neighbours=(Neighbour("q", 0.9),),
        candidates=(answer,),
        chosen=0,
    )


class Always(random.Random):
    """0.5: no second run and no comparison of strangers; 0: both."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        return self._value


class Bench:
    def __init__(
        self,
        share: float = 1.0,
        shared: Any = None,
        rng: random.Random | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        self.calibrator = Calibrator(Calibration((), "none", False), 0.02)
        self.evidence = Evidence(self.calibrator)
        self.kept: list[VerifiedLabel] = []
        self.shadow = ShadowVerifier(
            share=share,
            evidence=self.evidence,
            embedder=HashEmbedder(),
            metrics=Metrics(self.registry),
            policy=policy,
            keep=self.kept.append,
            shared=shared,
            rng=rng or Always(0.5),
        )

    async def hit(self, answer: str | None) -> None:
        async def run(lookup: Lookup) -> dict[str, Any] | None:
            return None if answer is None else body(answer)

        self.shadow.hit(looked_up(0.95, hit=True), run)
        await self.settle()

    async def settle(self) -> None:
        while self.shadow._tasks:
            await asyncio.gather(*self.shadow._tasks)

    def ratio(self, kind: str) -> float:
        return self.gauge("wattgate_cache_false_hit_ratio", kind=kind)

    def gauge(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, labels)
        assert value is not None
        return value


async def test_a_hit_that_the_model_repeats_is_right() -> None:
    bench = Bench()
    assert math.isnan(bench.ratio("estimate"))
    await bench.hit("press the red button.")
    assert bench.kept == [VerifiedLabel("served", 0.95, True)]
    assert bench.ratio("estimate") == 0.0
    assert 0.0 < bench.ratio("upper") < 1.0


async def test_a_hit_that_the_model_contradicts_is_wrong_and_tightens() -> None:
    bench = Bench()
    await bench.hit("There is no such thing here at all, ask somebody else.")
    assert bench.kept == [VerifiedLabel("served", 0.95, False)]
    # one wrong of one: the lower bound is above the budget already
    assert bench.calibrator.tightened == 1
    assert bench.calibrator.threshold >= 0.95


async def test_a_broken_budget_shows_after_the_threshold_was_tightened() -> None:
    bench = Bench()
    for _ in range(3):
        await bench.hit("There is no such thing here at all, ask somebody else.")
    assert bench.calibrator.tightened > 0
    assert bench.ratio("estimate") == 1.0
    assert bench.ratio("lower") > bench.gauge("wattgate_cache_max_wrong_ratio") == 0.02


async def test_the_threshold_exported_is_the_one_in_force() -> None:
    assert Bench(policy=ThresholdPolicy(0.9)).gauge("wattgate_cache_threshold_ratio") == 0.9
    bench = Bench()
    assert bench.gauge("wattgate_cache_threshold_ratio") == bench.calibrator.threshold
    assert math.isnan(Bench(policy=EntryPolicy(VCachePolicy(0.02))).gauge("wattgate_cache_threshold_ratio"))


async def test_a_near_miss_is_labelled_by_its_own_run() -> None:
    bench = Bench()
    bench.shadow.missed(looked_up(0.7, hit=False), body("Press the red button."))
    await bench.settle()
    assert bench.kept == [VerifiedLabel("refused", 0.7, True)]


async def test_without_a_share_nothing_runs() -> None:
    bench = Bench(share=0.0)
    await bench.hit("anything")
    bench.shadow.missed(looked_up(0.7, hit=False), body("anything"))
    assert bench.kept == []


async def test_no_room_for_a_run_is_no_label() -> None:
    bench = Bench()
    await bench.hit(None)
    assert bench.kept == []
    assert bench.registry.get_sample_value("wattgate_cache_shadow_total", {"outcome": "skipped"}) == 1


async def test_an_answer_that_cannot_be_embedded_is_no_label_and_tightens_nothing() -> None:
    bench = Bench()
    bench.shadow._embedder = HashEmbedder(window_tokens=0)
    threshold = bench.calibrator.threshold
    await bench.hit("There is no such thing here at all, ask somebody else.")
    assert bench.kept == []
    assert (bench.calibrator.tightened, bench.calibrator.threshold) == (0, threshold)
    assert bench.gauge("wattgate_cache_shadow_total", outcome="failed") == 1
    assert math.isnan(bench.ratio("estimate"))


async def test_of_neighbours_equally_near_the_judged_one_is_compared() -> None:
    bench = Bench()
    lookup = looked_up(0.7, hit=False)
    other = replace(lookup.candidates[0], body_bytes=BODY.replace(b"red", b"large and old"))
    tied = replace(lookup, neighbours=2 * lookup.neighbours, candidates=(other, *lookup.candidates), chosen=1)
    bench.shadow.missed(tied, body("Press the red button."))
    await bench.settle()
    assert bench.kept == [VerifiedLabel("refused", 0.7, True)]


def test_labels_survive_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    labels = LabelFile(tmp_path / "labels.jsonl", version="v")
    assert labels.read() == ([], 0)
    written = [VerifiedLabel("served", 0.91, True), VerifiedLabel("grey", 0.4, False), VerifiedLabel("same", 0.0, True)]
    for label in written:
        labels.append(label)
    with labels.path.open("a") as file:
        file.write('{"score": 0.')
    assert labels.read() == (written, 0)


def test_labels_of_another_judge_are_counted_and_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"score": 0.3, "right": true, "served": true}\n')
    for version in ("one", "other", "other"):
        LabelFile(path, version=version).append(VerifiedLabel("served", 0.9, True))
    assert LabelFile(path, version="one").read() == ([VerifiedLabel("served", 0.9, True)], 3)


async def test_what_the_grey_zone_let_through_is_counted_apart_and_does_not_tighten() -> None:
    bench = Bench()
    lookup = replace(looked_up(0.5, hit=True), why=VERIFIED)

    async def run(lookup: Lookup) -> dict[str, Any] | None:
        return body("There is no such thing here at all, ask somebody else.")

    bench.shadow.hit(lookup, run)
    await bench.settle()
    assert bench.kept == [VerifiedLabel("grey", 0.5, False)]
    assert bench.calibrator.tightened == 0
    assert bench.calibrator.wrong_of_served() == (0, 0)
    assert bench.gauge("wattgate_cache_shadow_total", outcome="grey_wrong") == 1


async def test_a_semantic_hit_runs_again_as_shadow_and_never_for_its_tenant(house: House) -> None:
    bench = Bench()
    house.gateway.shadow = bench.shadow
    lookup = looked_up(0.95, hit=True)
    request = replace(lookup.request, payload=house.chat(stream=True), model="m")
    lookup.request = request
    bench.shadow.hit(lookup, OwnCalls(house.gateway.runs).shadow)
    await bench.settle()
    assert [asked.tenant for asked in house.engine.requests] == ["shadow"]
    assert bench.kept == [VerifiedLabel("served", 0.95, False)]
    await house.meter.flush()
    assert {record.tenant for record in house.books.batches[0].records} == {"shadow"}


class Stream:
    """Shared labels in memory, one list for all replicas."""

    def __init__(self, labels: list[VerifiedLabel], *, away: bool = False) -> None:
        self.labels, self.read, self.away = labels, 0, away

    async def exchange(self, label: VerifiedLabel | None = None) -> list[VerifiedLabel]:
        if self.away:
            raise StoreUnavailable(Loss.CONNECTION)
        if label is not None:
            self.labels.append(label)
        new, self.read = self.labels[self.read :], len(self.labels)
        return new

    async def close(self) -> None:
        pass


async def test_replicas_hold_the_same_ratio_and_threshold() -> None:
    labels: list[VerifiedLabel] = []
    one, other = Bench(shared=Stream(labels)), Bench(shared=Stream(labels))
    for answer in ("Press the red button.", "Nothing of the kind, ask somebody else.", "press the red button."):
        await one.hit(answer)
    await other.hit("Press the red button.")
    await one.hit("Press the red button.")
    other.shadow._caught_up_seconds = -math.inf
    await other.hit(None)
    assert one.calibrator.wrong_of_served() == other.calibrator.wrong_of_served()
    assert one.calibrator.threshold == other.calibrator.threshold
    for kind in ("estimate", "lower", "upper"):
        assert one.ratio(kind) == other.ratio(kind)


async def test_labels_read_from_a_file_are_not_counted_twice() -> None:
    bench = Bench(shared=Stream([VerifiedLabel("served", 0.9, True), VerifiedLabel("refused", 0.6, False)]))
    bench.evidence.replay([VerifiedLabel("served", 0.9, True), VerifiedLabel("refused", 0.6, False)])
    await bench.hit("Press the red button.")
    assert [label.score for label in bench.calibrator.live_labels] == [0.9, 0.6, 0.95]


async def test_a_replica_that_joins_lets_others_work_between_the_labels() -> None:
    bench = Bench(shared=Stream([VerifiedLabel("refused", 0.6, True)] * 100))
    counted: list[int] = []

    async def watch() -> None:
        while len(bench.calibrator.live_labels) < 100:
            counted.append(len(bench.calibrator.live_labels))
            await asyncio.sleep(0)

    bench.shadow.missed(looked_up(0.0, hit=False), body("anything"))
    await watch()
    assert {20, 40, 60, 80} <= set(counted)


async def test_a_redis_that_began_anew_does_not_displace_what_the_file_held() -> None:
    stream = Stream([VerifiedLabel("served", 0.9, True)])
    bench = Bench(shared=stream)
    bench.evidence.replay([VerifiedLabel("served", 0.8, True)] * 3)
    await bench.hit("Press the red button.")
    assert [label.score for label in bench.calibrator.live_labels] == [0.8, 0.8, 0.8, 0.95]
    stream.labels.append(VerifiedLabel("served", 0.7, True))
    await bench.hit("Press the red button.")
    assert [label.score for label in bench.calibrator.live_labels][4:] == [0.7, 0.95]


async def test_without_redis_a_replica_learns_from_its_own_labels() -> None:
    bench = Bench(shared=Stream([], away=True))
    await bench.hit("Press the red button.")
    assert len(bench.calibrator.live_labels) == 1


async def test_a_request_run_twice_measures_the_comparison() -> None:
    answers = iter(["Press the red button.", "Something else altogether, really."])

    async def run(lookup: Lookup) -> dict[str, Any] | None:
        return body(next(answers))

    bench = Bench(rng=Always(0.0))
    bench.shadow.hit(looked_up(0.95, hit=True), run)
    await bench.settle()
    assert bench.evidence.comparator.false_alarms == (1, 1)
    assert [label.right for label in bench.calibrator.live_labels] == [True]


async def test_answers_that_a_guard_kept_apart_measure_it_too() -> None:
    bench = Bench(rng=Always(0.0))
    apart = replace(looked_up(0.0, hit=False), guard="numbers")
    bench.shadow.missed(apart, body("Press the red button."))
    await bench.settle()
    assert bench.evidence.comparator.misses == (1, 1)
    assert bench.calibrator.live_labels == ()
