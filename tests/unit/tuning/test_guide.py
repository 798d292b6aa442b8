import math
from dataclasses import replace

import pytest

from metering.intensity.static import StaticIntensity
from metering.site import Site
from serving.tuning.bench import SimulatedBench, predicted
from serving.tuning.engine_model import Plane
from serving.tuning.goal import Goal
from serving.tuning.guide import Seen, between, candidates, propose
from serving.tuning.lengths import Lengths
from serving.tuning.search import Budget, search
from serving.tuning.setting import Setting, Space
from serving.tuning.slo import Slo
from serving.tuning.study import open_study
from serving.tuning.synthetic import Synthetic

WORKLOAD = Synthetic(120, 1000.0, Lengths("fixed", 64), Lengths("fixed", 40)).workload()
SITE = Site(StaticIntensity("WORLD").reading)


class Guided(SimulatedBench):
    """The simulator as the truth; its predictions are another engine's, two fifths too slow and of another slope."""

    def predict(self, settings, workload):
        wrong = replace(self.engine, planes=(Plane(0.018, 0.0006, 0.00002),))
        return [predicted(wrong, one, workload, self.clients, self.slo, self.site) for one in settings]


@pytest.fixture
def truth(engine_model):
    return replace(engine_model, planes=(Plane(0.010, 0.0005, 0.00002),))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*:UserWarning:optuna")
@pytest.mark.parametrize("start", [1, 8, 64])
@pytest.mark.parametrize("bound", ["itl_p95<=0.018", "itl_p95<=0.028"])
def test_five_trials_find_what_an_exhaustive_sweep_of_64_finds_within_5_percent(truth, start, bound):
    slo = Slo.parse([bound])
    goal = Goal("grams", slo)
    bench = Guided(truth, SITE, slo, clients=64)
    sweep = [bench.run(Setting(cap), WORKLOAD, seed=0, hopeless=False) for cap in range(1, 65)]
    best = min(goal.value(figures) for figures in sweep if slo.met(figures))
    study = open_study(None, {"slo": str(slo)}, 0)
    tried = search(bench, WORKLOAD, goal, Space(1, 64), Setting(start), study, Budget(5))
    assert min(goal.value(one.figures) for one in tried if one.meets) <= 1.05 * best


def linear(settings):
    return [{"itl_p95_seconds": 0.01 + 0.001 * one.cap, "grams_per_1k_output_tokens": 1 / one.cap} for one in settings]


def grams(figures, setting):
    return figures["grams_per_1k_output_tokens"]


def test_what_was_seen_corrects_what_is_predicted():
    slo = Slo.parse(["itl_p95<=0.05"])
    settings = [Setting(cap) for cap in range(1, 65)]
    seen = linear([Setting(16)])[0]
    assert propose([Seen(Setting(16), seen)], settings, linear, grams, slo).cap == 40
    twice = {**seen, "itl_p95_seconds": 2 * seen["itl_p95_seconds"]}
    assert propose([Seen(Setting(16), twice)], settings, linear, grams, slo).cap == 15


def test_slack_looks_beyond_the_bound():
    slo = Slo.parse(["itl_p95<=0.05"])
    settings = [Setting(cap) for cap in range(1, 65)]
    run = Seen(Setting(16), linear([Setting(16)])[0])
    assert propose([run], settings, linear, grams, slo, slack=0.1).cap == 45


def test_where_nothing_keeps_the_promise_the_closest_is_proposed():
    settings = [Setting(cap) for cap in range(4, 65)]
    run = Seen(Setting(64), linear([Setting(64)])[0])
    assert propose([run], settings, linear, grams, Slo.parse(["itl_p95<=0.001"])).cap == 4


def test_with_an_unknown_objective_the_most_tokens_a_second_are_proposed():
    def predict(settings):
        return [{"output_tokens_per_second": float(one.cap), "grams_per_1k_output_tokens": None} for one in settings]

    def value(figures, setting):
        return figures["grams_per_1k_output_tokens"] or math.inf

    run = Seen(Setting(4), {"output_tokens_per_second": 3.0, "grams_per_1k_output_tokens": 0.2})
    assert propose([run], [Setting(cap) for cap in (2, 8, 6)], predict, value, Slo()).cap == 8


def test_without_a_model_or_runs_nothing_is_proposed():
    run = Seen(Setting(4), {"output_tokens_per_second": 3.0})
    assert propose([run], [Setting(8)], lambda settings: None, grams, Slo()) is None
    assert propose([], [Setting(8)], linear, grams, Slo()) is None
    assert propose([run], [], linear, grams, Slo()) is None


def test_candidates_are_the_whole_of_a_small_space_and_a_sample_of_a_large_one():
    assert [one.cap for one in candidates(Space(1, 5), {Setting(3)})] == [1, 2, 4, 5]
    many = candidates(Space(1, 1000, max_batched_tokens=(64, 512), replicas=(1, 2)), set())
    assert len(many) <= 64
    assert {one.max_batched_tokens for one in many} == {64, 512}
    assert {one.cap for one in many} >= {1, 1000}


def test_halfway_lies_between_the_best_that_kept_the_promise_and_the_least_above_that_did_not():
    tried = [(Setting(32), False, 1.0), (Setting(8), True, 3.0), (Setting(4), True, 5.0), (Setting(20), False, 2.0)]
    assert between(tried) == Setting(13)
    assert between([*tried, (Setting(9), False, 2.9)]) is None
    assert between([(Setting(32), False, 1.0)]) is None
    assert between([(Setting(8), True, 3.0), (Setting(32, dtype="float16"), False, 1.0)]) is None
    assert between([(Setting(8), True, 3.0), (Setting(10), False, 1.0)]) == Setting(9)
