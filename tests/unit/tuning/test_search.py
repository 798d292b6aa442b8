import warnings
from dataclasses import replace
from typing import ClassVar

import pytest

from metering.errors import BadInput
from metering.intensity.static import StaticIntensity
from metering.site import Site
from serving.config import GatewayConfig
from serving.config_sources import load_config
from serving.tuning.bench import CannotStart, Hopeless, SimulatedBench
from serving.tuning.engine_model import Plane
from serving.tuning.goal import Goal, Tried
from serving.tuning.lengths import Lengths
from serving.tuning.outcome import Outcome
from serving.tuning.pareto import knee, pareto
from serving.tuning.recommended import recommended_yaml
from serving.tuning.search import Budget, search
from serving.tuning.setting import Setting, Space
from serving.tuning.slo import Slo
from serving.tuning.study import Stopwatch, StudyMismatch, open_study
from serving.tuning.synthetic import Synthetic
from serving.tuning.tune import recommend

# saturating: a larger cap is always cheaper a token, and always slower a token
WORKLOAD = Synthetic(200, 1000.0, Lengths("fixed", 64), Lengths("fixed", 40)).workload()
SLO = Slo.parse(["itl_p95<=0.022"])
SPACE = Space(1, 64)
CURRENT = Setting(1)


@pytest.fixture(autouse=True)
def _experimental_features():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", module="optuna")
        yield


@pytest.fixture
def bench(engine_model):
    site = Site(StaticIntensity("WORLD").reading)
    return SimulatedBench(replace(engine_model, planes=(Plane(0.010, 0.0005, 0.00002),)), site, SLO)


def identity(bench, slo=SLO):
    return {"engine": bench.identity, "slo": str(slo), "objective": "grams", "workload": WORKLOAD.name}


def run(bench, *, goal=None, path=None, trials=12, space=SPACE, seconds=float("inf"), clock=lambda: 0.0, told=None):
    goal = goal or Goal("grams", SLO)
    study = open_study(path, identity(bench, goal.slo), 0)
    told = told or (lambda tried: None)
    watch = Stopwatch(study, clock)
    return search(bench, WORKLOAD, goal, space, CURRENT, study, Budget(trials, seconds), watch=watch, told=told)


def test_the_search_comes_within_5_percent_of_the_exhaustive_best_with_a_third_of_its_trials(bench):
    goal = Goal("grams", SLO)
    sweep = [bench.run(Setting(cap), WORKLOAD, seed=0, hopeless=False) for cap in range(1, 65)]
    best = min(goal.value(figures) for figures in sweep if SLO.met(figures))
    tried = run(bench, trials=21)
    found = min(goal.value(one.figures) for one in tried if one.meets)
    assert found <= 1.05 * best


def test_the_current_setting_is_tried_first_and_none_twice(bench):
    tried = run(bench)
    assert tried[0].setting == CURRENT
    assert len({one.setting for one in tried}) == len(tried) == 12


def test_a_small_space_ends_when_it_is_spent(bench):
    tried = run(bench, space=Space(1, 3), trials=50)
    assert sorted(one.setting.cap for one in tried) == [1, 2, 3]


def test_the_budget_of_time_is_kept(bench):
    seconds = iter(range(1000))
    tried = run(bench, trials=100, seconds=5, clock=lambda: float(next(seconds)))
    assert len(tried) < 8


def test_a_setting_that_does_not_start_is_left_out_and_told(bench):
    class Picky(SimulatedBench):
        def run(self, setting, workload, *, seed, hopeless):
            if setting.chunked_prefill is False:
                raise CannotStart("vLLM needs chunks")
            return super().run(setting, workload, seed=seed, hopeless=hopeless)

    picky = Picky(bench.engine, bench.site, bench.slo)
    goal, failed = Goal("grams", SLO), []
    study = open_study(None, identity(picky), 0)
    space = Space(1, 4, chunked_prefill=(None, True, False))
    tried = search(
        picky, WORKLOAD, goal, space, CURRENT, study, Budget(30), failed=lambda setting, why: failed.append(why)
    )
    assert len(tried) > 4
    assert {one.setting.chunked_prefill for one in tried} == {None, True}
    assert set(failed) == {"vLLM needs chunks"}


class Refusing(SimulatedBench):
    """Does not start where ``refuses`` says so; ``started`` are those that were asked."""

    refuses = staticmethod(lambda setting: False)

    def run(self, setting, workload, *, seed, hopeless):
        self.started = [*getattr(self, "started", []), setting]
        if self.refuses(setting):
            raise CannotStart("no such thing")
        return super().run(setting, workload, seed=seed, hopeless=hopeless)


def refusing(bench, refuses):
    bench = Refusing(bench.engine, bench.site, bench.slo)
    bench.refuses = refuses
    return bench


KNOBS = Space(
    1, 64, max_batched_tokens=(None, 64, 128, 256), prefix_caching=(None, True, False), chunked_prefill=(None, False)
)


def test_a_value_that_does_not_start_is_asked_once_for_all_caps_and_never_again_after_a_resumption(bench, tmp_path):
    path = tmp_path / "study.journal"
    picky = refusing(bench, lambda setting: setting.max_batched_tokens == 64)
    run(picky, path=path, space=KNOBS, trials=60)
    dead = [one.shell for one in picky.started if one.max_batched_tokens == 64]
    assert len(dead) == len(set(dead)) == 6
    again = refusing(bench, picky.refuses)
    assert len(run(again, path=path, space=KNOBS, trials=70)) == 70
    assert not any(one.max_batched_tokens == 64 for one in again.started)


def test_every_combination_of_knobs_is_tried_at_a_single_cap(bench):
    space = replace(KNOBS, lowest_cap=1, highest_cap=1)
    assert len({one.setting for one in run(bench, space=space, trials=50)}) == space.size == 24


def test_a_gateway_that_ran_before_and_does_not_start_now_is_no_knobs_fault(bench, tmp_path):
    path = tmp_path / "study.journal"
    run(bench, path=path, trials=2)
    with pytest.raises(CannotStart):
        run(refusing(bench, lambda setting: True), path=path, trials=4)
    assert len(run(bench, path=path, trials=4)) == 4


def test_a_current_setting_outside_of_the_space_is_tried_once_and_first_over_all_sittings(bench, tmp_path):
    path, space = tmp_path / "study.journal", Space(8, 16)
    assert run(bench, path=path, space=space, trials=2)[0].setting == CURRENT
    settings = [one.setting for one in run(bench, path=path, space=space, trials=30)]
    assert settings.count(CURRENT) == 1
    assert len(settings) == 1 + space.size


def failing(bench, errors):
    class Failing(SimulatedBench):
        def run(self, setting, workload, *, seed, hopeless):
            figures = super().run(setting, workload, seed=seed, hopeless=hopeless)
            return {**figures, "errors": errors, "completed": figures["requests"] - sum(errors.values())}

    return Failing(bench.engine, bench.site, bench.slo)


def test_requests_that_are_refused_end_the_search_at_once_by_their_error(bench):
    with pytest.raises(BadInput, match=r"12 of 200 requests are refused \(HTTP 400 x 12\)"):
        run(failing(bench, {"HTTP 400": 12}))


def test_one_failure_in_a_hundred_is_tolerated_and_more_are_told(bench):
    goal = Goal("grams", SLO)
    assert run(failing(bench, {"HTTP 503": 2}), trials=1)[0].meets
    tried = run(failing(bench, {"HTTP 503": 2, "HTTP 429": 1}), trials=1)
    assert not tried[0].meets
    why = recommend(bench, WORKLOAD, goal, CURRENT, tried).why
    assert "3 requests failed (HTTP 503 x 2, HTTP 429 x 1)" in why


def test_time_for_the_repeats_is_kept_back_over_all_sittings(bench, tmp_path):
    """A run is a second of this clock."""

    class Timed(SimulatedBench):
        seconds = 0.0

        def run(self, setting, workload, *, seed, hopeless):
            self.seconds += 1.0
            return super().run(setting, workload, seed=seed, hopeless=hopeless)

    def sitting(trials):
        timed = Timed(bench.engine, bench.site, bench.slo)
        study = open_study(tmp_path / "study.journal", identity(timed), 0)
        watch, budget = Stopwatch(study, lambda: timed.seconds), Budget(trials, 20.0, repeats=3)
        return search(timed, WORKLOAD, Goal("grams", SLO), SPACE, CURRENT, study, budget, watch=watch)

    assert len(sitting(5)) == 5
    assert len(sitting(64)) == 14


def test_a_gateway_that_does_not_start_at_all_ends_the_search(bench):
    bench.run = lambda *args, **kwargs: (_ for _ in ()).throw(CannotStart("no model"))
    with pytest.raises(CannotStart):
        run(bench)


def test_the_frontier_is_drawn_over_the_latency_that_the_promise_bounds_first():
    figures = [{"itl_p95_seconds": itl, "e2e_p95_seconds": 9.0, "grams_per_1k_output_tokens": grams}
               for itl, grams in ((0.1, 9.0), (0.2, 3.0), (0.3, 5.0))]  # fmt: skip
    tried = [Tried(number, Setting(number + 1), one, True, 0.0) for number, one in enumerate(figures)]
    goal = Goal("grams", Slo.parse(["itl_p95<=1s"]))
    assert [one.number for one in pareto(tried, goal)] == [0, 1]


def test_all_knobs_are_searched(bench):
    space = Space(1, 32, max_batched_tokens=(64, 512), prefix_caching=(True, False), replicas=(1, 2))
    first, *settings = [one.setting for one in run(bench, space=space, trials=25)]
    # a current setting outside of the space is what all others are compared with
    assert first == CURRENT
    assert {setting.max_batched_tokens for setting in settings} == {64, 512}
    assert {setting.replicas for setting in settings} == {1, 2}


def test_an_interrupted_study_goes_on_where_it_was(bench, tmp_path):
    path = tmp_path / "study.journal"

    def interrupt(tried):
        if tried.number >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(bench, path=path, told=interrupt)
    tried = run(bench, path=path, trials=8)
    assert len(tried) == 8
    assert len({one.setting for one in tried}) == 8


def test_a_run_that_dies_within_a_trial_is_resumed(bench, tmp_path):
    path = tmp_path / "study.journal"
    broken = replace(bench)
    broken.run = lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(broken, path=path)
    assert len(run(bench, path=path, trials=4)) == 4


def test_a_study_of_another_model_is_refused(bench, engine_model, tmp_path):
    path = tmp_path / "study.journal"
    run(bench, path=path, trials=2)
    other = replace(bench, engine=replace(engine_model, model="other"))
    with pytest.raises(StudyMismatch, match="of another engine"):
        run(other, path=path)


def test_a_study_with_another_part_in_its_identity_is_refused_by_that_part(tmp_path, bench):
    path = tmp_path / "study.journal"
    run(bench, path=path, trials=2)
    with pytest.raises(StudyMismatch, match=r"of another loop \(not told, now open\).*--study"):
        open_study(path, {**identity(bench), "loop": "open"}, 0)
    without = {name: value for name, value in identity(bench).items() if name != "workload"}
    with pytest.raises(StudyMismatch, match="of another workload"):
        open_study(path, without, 0)


def test_a_study_in_which_nothing_ran_may_become_another(tmp_path, bench):
    path = tmp_path / "study.journal"
    open_study(path, {**identity(bench), "engine": "other"}, 0)
    assert len(run(bench, path=path, trials=2)) == 2


@pytest.mark.parametrize("torn", [b'{"op_code":8,"worker', b"\0\0\0", b'{"op_code":8\n'])
def test_a_last_line_that_a_loss_of_power_tore_is_cut_off(tmp_path, bench, torn):
    path, told = tmp_path / "study.journal", []
    run(bench, path=path, trials=3)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    open_study(path, identity(bench), 0, tell=told.append)
    assert path.read_bytes().startswith(whole)
    assert "is cut off" in told[0]
    assert len(run(bench, path=path, trials=4)) == 4


def test_a_study_that_is_damaged_within_is_refused_with_the_mend(tmp_path, bench):
    path = tmp_path / "study.journal"
    run(bench, path=path, trials=3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], b"@@\n", *lines[6:]]))
    with pytest.raises(BadInput, match=r"line 6 of the study .* is damaged.*head -n 5"):
        run(bench, path=path)


def test_a_file_that_is_no_study_is_refused(bench, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\n")
    with pytest.raises(BadInput, match=r"notes\.txt is not a study"):
        run(bench, path=path)


def test_an_objective_without_figures_is_refused_at_once(bench, engine_model):
    with pytest.raises(BadInput, match="grams_per_1k"):
        run(replace(bench, engine=replace(engine_model, power=None)))


def test_the_receipts_cost_goes_before_one_made_of_the_price(bench):
    goal = Goal("cost", SLO, price_per_device_hour=3.6, devices=2)
    told = {"output_tokens_per_second": 10.0, "cost_per_1k_output_tokens": 7.0}
    assert goal.rated(told, Setting(1))["cost_per_1k_output_tokens"] == 7.0
    untold = {"output_tokens_per_second": 10.0}
    assert goal.rated(untold, Setting(1, replicas=3))["cost_per_1k_output_tokens"] == pytest.approx(0.6)


def test_a_study_that_cannot_be_kept_is_refused_in_a_line(bench, tmp_path):
    with pytest.raises(BadInput, match=r"cannot keep the study in .*absent.*--study"):
        run(bench, path=tmp_path / "absent" / "study.journal")


def test_the_recommendation_is_better_with_an_interval_and_keeps_the_slo(bench):
    tried = run(bench, trials=20)
    found = recommend(bench, WORKLOAD, Goal("grams", SLO), CURRENT, tried)
    assert found.setting.cap > 10
    assert found.gain.high < 0.5
    assert "itl p95" in found.why
    caps = [one["setting"]["cap"] for one in found.repeats]
    assert caps[:4] == [1, (first := caps[1]), first, 1]
    assert found.setting.cap in caps


def test_a_gain_within_the_noise_leaves_the_current_setting(bench):
    class Noisy:
        identity, calls = "noisy", 0

        def run(self, setting, workload, *, seed, hopeless):
            self.calls += 1
            figures = bench.run(setting, workload, seed=seed, hopeless=hopeless)
            noise = 1.0 + 0.1 * ((7 * self.calls) % 5)
            joules = 1e5 * noise / figures["output_tokens"]
            return {**figures, "joules_per_output_token": joules, "operational_grams": noise}

        def predict(self, settings, workload):
            return None

        def close(self):
            return None

    noisy = Noisy()
    tried = run(noisy, trials=6)
    found = recommend(noisy, WORKLOAD, Goal("grams", SLO), CURRENT, tried)
    assert found.setting == CURRENT
    assert "stays" in found.why


class Uneven(SimulatedBench):
    """Grams and token times by cap: in the search, and in the repeats (seeds of their own)."""

    searched: ClassVar = {1: (10.0, 0.01), 2: (4.1, 0.01), 3: (4.0, 0.01), 4: (3.9, 0.023), 5: (3.0, 0.05)}
    repeated: ClassVar = {1: (10.0, 0.01), 2: (4.5, 0.01), 3: (4.2, 0.01), 4: (3.8, 0.021), 5: (3.0, 0.05)}

    def run(self, setting, workload, *, seed, hopeless):
        figures = super().run(setting, workload, seed=seed, hopeless=hopeless)
        grams, itl = (self.searched if seed < 10_000 else self.repeated)[setting.cap]
        energy = {"joules_per_output_token": 1e5 * grams / figures["output_tokens"], "operational_grams": grams}
        return {**figures, "itl_p95_seconds": itl, **energy}


def test_what_single_runs_cannot_tell_apart_is_repeated_and_the_best_of_the_repeats_counts(bench):
    bench = Uneven(bench.engine, bench.site, bench.slo)
    tried = run(bench, space=Space(1, 5), trials=5)
    assert {one.setting.cap for one in tried if one.meets} == {1, 2, 3}
    found = recommend(bench, WORKLOAD, Goal("grams", SLO), CURRENT, tried)
    # 4 missed its 22 ms by a hair in the search, and is better and keeps them in its repeats; 5 never does
    assert found.setting == Setting(4)
    assert {one["setting"]["cap"] for one in found.repeats} == {1, 2, 3, 4}
    assert "Its repeats were better than those of cap 3; cap 2." in found.why


def test_what_broke_the_slo_is_not_recommended_where_no_repeat_could_be_run(bench):
    bench = Uneven(bench.engine, bench.site, bench.slo)
    tried = run(bench, space=Space(1, 5), trials=5)
    found = recommend(bench, WORKLOAD, Goal("grams", SLO), CURRENT, tried, over=lambda: "the --minutes are over")
    assert found.setting == Setting(3)
    assert "Not repeated (the --minutes are over)" in found.why


class LuckyOnce(SimulatedBench):
    """Keeps the promise in the search with every cap, and in the repeats (seeds of their own) only up to ``honest``."""

    honest = 0

    def run(self, setting, workload, *, seed, hopeless):
        figures = super().run(setting, workload, seed=seed, hopeless=hopeless)
        lucky = seed < 10_000 or setting.cap <= self.honest
        grams = 10.0 / setting.cap
        energy = {"joules_per_output_token": 1e5 * grams / figures["output_tokens"], "operational_grams": grams}
        return {**figures, "itl_p95_seconds": 0.01 if lucky else 1.0, **energy}


def lucky(bench, honest):
    bench = LuckyOnce(bench.engine, bench.site, bench.slo)
    bench.honest = honest
    return bench


def test_the_next_best_is_repeated_where_the_best_breaks_the_slo_in_its_repeats(bench):
    bench = lucky(bench, honest=3)
    tried = run(bench, space=Space(1, 4), trials=4)
    found = recommend(bench, WORKLOAD, Goal("grams", SLO), CURRENT, tried)
    assert found.setting == Setting(3)
    assert "Broke the SLO in its repeats: cap 4." in found.why
    caps = [one["setting"]["cap"] for one in found.repeats]
    assert caps == [1, 4, 4, 1, 1, 3, 3, 1, 1, 3]


def test_where_the_repeats_end_early_what_broke_the_slo_in_its_own_is_not_recommended(bench):
    bench = lucky(bench, honest=3)
    tried = run(bench, space=Space(1, 4), trials=4)
    pairs = iter((None, None))
    found = recommend(
        bench, WORKLOAD, Goal("grams", SLO), CURRENT, tried, over=lambda: next(pairs, "the --minutes are over")
    )
    assert found.setting == Setting(3)
    assert "Not repeated (the --minutes are over)" in found.why
    assert "Broke the SLO in its repeats: cap 4." in found.why


def test_the_current_setting_stays_where_everything_better_breaks_the_slo_in_its_repeats(bench):
    bench = lucky(bench, honest=1)
    found = recommend(bench, WORKLOAD, Goal("grams", SLO), CURRENT, run(bench, space=Space(1, 3), trials=3))
    assert found.setting == CURRENT
    assert "cap 3; cap 2" in found.why


def test_nothing_is_recommended_that_broke_the_slo_in_its_repeats(bench):
    bench = lucky(bench, honest=0)
    found = recommend(bench, WORKLOAD, Goal("grams", SLO), CURRENT, run(bench, space=Space(1, 8), trials=8))
    assert found.setting is None
    assert found.closest.setting == Setting(8)
    assert "No setting kept the SLO in its repeats" in found.why


def test_a_promise_nothing_keeps_is_said_so_with_the_closest(bench):
    slo = Slo.parse(["itl_p95<=0.001"])
    goal = Goal("grams", slo)
    found = recommend(bench, WORKLOAD, goal, CURRENT, run(bench, goal=goal))
    assert found.setting is None
    assert found.closest.setting == CURRENT
    assert "No setting that was tried meets the SLO" in found.why


def trial(number, latency, grams, meets=True):
    figures = {"e2e_p95_seconds": latency, "grams_per_1k_output_tokens": grams}
    return Tried(number, Setting(number + 1), figures, meets, 0.0)


def test_the_frontier_is_what_nothing_beats_and_its_knee_is_where_it_bends():
    tried = [trial(0, 1, 10), trial(1, 2, 3), trial(2, 6, 2), trial(3, 3, 9), trial(4, 0.5, 1, meets=False)]
    goal = Goal("grams", Slo())
    front = pareto(tried, goal)
    assert [one.number for one in front] == [0, 1, 2]
    assert knee(front, goal).number == 1
    assert knee(front[:2], goal) is None


def test_a_setting_of_fewer_tokens_a_second_for_as_many_grams_is_not_on_the_frontier():
    tried = [trial(number, *point) for number, point in enumerate([(1, 10), (2, 3), (2, 3), (3, 4)])]
    for one, rate in zip(tried, (1, 5, 6, 9), strict=True):
        one.figures["output_tokens_per_second"] = rate
    goal = Goal("grams", Slo())
    assert [one.number for one in pareto(tried, goal)] == [0, 2, 3]
    # throughput is the objective already: then grams are the third
    tokens = Goal("tokens", Slo())
    assert [one.number for one in pareto(tried, tokens)] == [0, 2, 3]


def test_a_setting_applied_gives_a_config_that_serve_takes(tmp_path):
    config = load_config(None, {"cache.tier": "off", "access.api_keys": {"t": "secret"}}).config
    wanted = Setting(48, max_batched_tokens=512, prefix_caching=False, chunked_prefill=False, replicas=2)
    applied = wanted.applied(config)
    path = tmp_path / "recommended.yaml"
    path.write_text(recommended_yaml(applied, "because\nof this")[0])
    read = load_config(path, environment={}).config
    assert (read.admission.max_concurrency, read.engine.vllm.max_batch) == (48, 48)
    assert read.engine.vllm.max_batched_tokens == 512
    assert not read.engine.vllm.enable_prefix_caching
    assert read.engine.vllm.extra == {"no-enable-chunked-prefill": True}
    assert Setting.of(read) == Setting(48, 512, False, False, "auto", 2)
    assert Setting.of(Setting(48, chunked_prefill=True).applied(read)).chunked_prefill
    assert read.server.replicas == 2
    assert "secret" not in path.read_text()
    assert path.read_text().startswith("# because\n# of this\n")


def test_simulated_figures_name_the_knobs_that_the_engine_model_ignores(bench):
    known = bench.run(Setting(4, max_batched_tokens=64, dtype="auto"), WORKLOAD, seed=0, hopeless=False)
    unknown = bench.run(Setting(4, chunked_prefill=False, dtype="bfloat16"), WORKLOAD, seed=0, hopeless=False)
    assert known["ignored"] == []
    assert unknown["ignored"] == ["chunked_prefill", "dtype"]


def test_a_config_speaks_of_its_own_setting():
    config = GatewayConfig()
    assert Setting.of(config).applied(config) == config


def test_only_the_cap_moves_without_a_restart():
    assert not Setting(4).restarts(Setting(8))
    assert Setting(4, max_batched_tokens=64).restarts(Setting(4))


def test_a_run_is_hopeless_once_more_broke_the_bound_than_its_percentile_allows():
    slow = Outcome(0.0, 0.0, 9.0, first_token_seconds=5.0, output_tokens=10)
    fast = Outcome(0.0, 0.0, 1.0, first_token_seconds=0.1, output_tokens=10)
    lost = Hopeless(Slo.parse(["ttft_p95<=1s"]), 40)
    for outcome in [fast] * 10 + [slow] * 3:
        lost(outcome)
    assert not lost
    lost(slow)
    assert lost
