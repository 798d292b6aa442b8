from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.architecture import architecture_from_config
from metering.errors import BadInput
from metering.flops import decode_flops, prefill_flops
from metering.intensity.static import StaticIntensity
from metering.site import Prices, Site
from serving.tuning.engine_model import EngineModel, FlopCount, Plane
from serving.tuning.forecast import forecast
from serving.tuning.lengths import Lengths
from serving.tuning.simulation import Limits, simulate
from serving.tuning.slo import Slo
from serving.tuning.synthetic import Synthetic
from serving.tuning.workload import Workload

LLAMA = architecture_from_config(
    {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }
)
SITE = Site(StaticIntensity("given", grams_per_kwh=400.0).reading, 1.1, prices=Prices(per_device_hour=2.0))


def workload(count=300, rate=4.0, prompt="uniform:5-400", output="uniform:1-60", **changes):
    return Synthetic(count, rate, Lengths.parse(prompt, "p"), Lengths.parse(output, "o"), **changes).workload()


def one(prompt=100, output=11, arrival=0.0):
    column = lambda value: np.array([value])  # noqa: E731
    return Workload(np.array([arrival]), column(prompt), column(output), column(0), column(-1))


def step_by_step(asked, model, limits):
    """The same engine without jumps: one step at a time, the obvious way."""
    now, waiting, prefilling, running = 0.0, [], [], {}
    arrivals = list(zip(asked.arrival_seconds.tolist(), range(len(asked)), strict=True))
    prompt, output = asked.prompt_tokens.tolist(), asked.output_tokens.tolist()
    first, end = np.full(len(asked), np.nan), np.full(len(asked), np.nan)
    while arrivals or waiting or prefilling or running:
        while arrivals and arrivals[0][0] <= now:
            waiting.append(arrivals.pop(0)[1])
        while waiting and len(prefilling) + len(running) < limits.cap:
            reserved = sum(prompt[i] + output[i] for i in [*(p[0] for p in prefilling), *running])
            if model.kv_tokens is not None and reserved + prompt[waiting[0]] + output[waiting[0]] > model.kv_tokens:
                break
            prefilling.append([waiting.pop(0), 0])
        if not prefilling and not running:
            now = arrivals[0][0]
            continue
        room = max(16, limits.max_batched_tokens - len(running))
        tokens = pairs = 0.0
        done = []
        while prefilling and tokens < room:
            index, before = prefilling[0]
            chunk = int(min(prompt[index] - before, room - tokens))
            tokens += chunk
            pairs += chunk * (before + (chunk + 1) / 2)
            prefilling[0][1] += chunk
            if prefilling[0][1] == prompt[index]:
                done.append(index)
                prefilling.pop(0)
        context = sum(prompt[i] + made for i, made in running.items())
        now += model.step_seconds(len(running), tokens, context, pairs)
        for index in list(running):
            running[index] += 1
            if running[index] == output[index]:
                end[index] = now
                del running[index]
        for index in done:
            first[index] = now
            if output[index] == 1:
                end[index] = now
            else:
                running[index] = 1
    return first - asked.arrival_seconds, end - asked.arrival_seconds


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rate=st.sampled_from([0.5, 4.0, 40.0]),
    cap=st.sampled_from([1, 3, 16]),
    batched=st.sampled_from([16, 64, 512]),
    memory=st.sampled_from([None, 1000]),
)
def test_jumping_gives_what_stepping_gives(seed, rate, cap, batched, memory):
    asked = workload(60, rate, seed=seed)
    model = EngineModel("m", "d", (Plane(0.010, 0.0005, 0.0001, 1e-6, 1e-9),), kv_tokens=memory)
    limits = Limits(cap, batched)
    run = simulate(asked, model, limits)
    ttft, e2e = step_by_step(asked, model, limits)
    assert run.ttft_seconds == pytest.approx(ttft, rel=1e-6, abs=1e-9)
    assert run.e2e_seconds == pytest.approx(e2e, rel=1e-6, abs=1e-9)


def test_one_request_takes_its_prefill_and_its_steps(engine_model):
    run = simulate(one(), engine_model, Limits())
    prefill = engine_model.step_seconds(0, 100, 0, 100 * 101 / 2)
    decode = sum(engine_model.step_seconds(1, 0, context) for context in range(101, 111))
    assert run.ttft_seconds[0] == pytest.approx(prefill)
    assert run.e2e_seconds[0] == pytest.approx(prefill + decode)
    assert run.busy_seconds == pytest.approx(prefill + decode)


def test_the_overhead_of_a_request_is_in_its_latency(engine_model):
    slow = replace(engine_model, overhead_seconds=0.5)
    plain, delayed = (simulate(one(), model, Limits()) for model in (engine_model, slow))
    assert delayed.ttft_seconds[0] - plain.ttft_seconds[0] == pytest.approx(0.5)
    assert delayed.e2e_seconds[0] - plain.e2e_seconds[0] == pytest.approx(0.5)


@pytest.mark.parametrize("cap", [1, 4, 64])
def test_the_batch_is_never_larger_than_the_cap(engine_model, cap):
    run = simulate(workload(rate=1000.0), engine_model, Limits(cap))
    assert run.sequence_steps / run.steps <= cap + 1e-9


def test_a_larger_cap_gives_more_tokens_a_second_and_longer_gaps(engine_model):
    asked = workload(rate=1000.0)
    small, large = (simulate(asked, engine_model, Limits(cap)) for cap in (2, 32))
    assert large.seconds < small.seconds / 2
    assert large.gap_percentile(50) > small.gap_percentile(50)


def test_the_token_gaps_are_those_of_the_steps(engine_model):
    run = simulate(one(output=200), engine_model, Limits())
    assert run.gap_percentile(50) == pytest.approx(engine_model.step_seconds(1, 0, 200), rel=0.03)
    assert run.gap_counts.sum() == 199


def test_smaller_chunks_shorten_the_gaps_while_prompts_arrive_and_lengthen_their_wait(engine_model):
    asked = workload(rate=6.0, prompt="400", output="60")
    coarse, fine = (simulate(asked, engine_model, Limits(64, budget)) for budget in (4096, 96))
    assert fine.gap_percentile(99) < coarse.gap_percentile(99)
    assert np.median(fine.ttft_seconds) > np.median(coarse.ttft_seconds)


def test_replicas_share_the_work(engine_model):
    asked = workload(rate=30.0)
    few, many = (simulate(asked, engine_model, Limits(8), replicas=count) for count in (1, 6))
    assert np.percentile(many.ttft_seconds, 95) < np.percentile(few.ttft_seconds, 95) / 5
    assert many.replicas == 6


def test_a_full_queue_refuses_and_says_how_many(engine_model):
    run = simulate(workload(rate=1000.0), engine_model, Limits(4, max_queue=10))
    assert run.refused == int(np.isnan(run.e2e_seconds).sum()) > 200


def test_repeats_hit_the_response_cache_and_cost_no_steps(engine_model):
    asked = workload(repeat_ratio=0.5, rate=0.5)
    cold, warm = (simulate(asked, engine_model, Limits(response_cache=cache)) for cache in (False, True))
    assert warm.hits == int((asked.repeat_of >= 0).sum())
    assert warm.sequence_steps < 0.7 * cold.sequence_steps
    assert np.median(warm.e2e_seconds[asked.repeat_of >= 0]) == pytest.approx(0.002, abs=1e-9)


def test_a_repeat_of_a_running_request_ends_with_it(engine_model):
    asked = workload(2, 1000.0, repeat_ratio=1.0, output="50")
    run = simulate(asked, engine_model, Limits(response_cache=True))
    ends = run.e2e_seconds + asked.arrival_seconds
    assert ends[1] == pytest.approx(ends[0] + 0.002)


def test_a_shared_prefix_is_computed_once(engine_model):
    asked = workload(100, prompt="200", prefix_tokens=150, prefix_ratio=1.0)
    run = simulate(asked, engine_model, Limits())
    assert run.computed_prompt_tokens.tolist() == [200] + [50] * 99


def test_each_replica_computes_a_shared_prefix_itself(engine_model):
    asked = workload(100, prompt="200", prefix_tokens=150, prefix_ratio=1.0)
    run = simulate(asked, engine_model, Limits(), replicas=4)
    assert run.computed_prompt_tokens.tolist() == [200] * 4 + [50] * 96


def test_more_replicas_find_fewer_repeats(engine_model):
    asked = workload(2000, prompt="200", repeat_ratio=0.6)
    computed = [
        int(simulate(asked, engine_model, Limits(), replicas=count).computed_prompt_tokens.sum())
        for count in (1, 4, 40)
    ]
    assert computed == sorted(computed)
    assert computed[2] > 1.5 * computed[0]


def test_a_repeat_of_a_refused_request_is_computed(engine_model):
    asked = workload(300, 1000.0, prompt="200", repeat_ratio=0.5)
    run = simulate(asked, engine_model, Limits(1, max_queue=2))
    ran = ~np.isnan(run.e2e_seconds)
    keys = np.where(asked.repeat_of >= 0, asked.repeat_of, np.arange(300))[ran]
    assert np.sum(run.computed_prompt_tokens[ran] == 200) == len(set(keys.tolist()))


def test_a_request_that_cannot_fit_is_refused_beforehand(engine_model):
    with pytest.raises(BadInput, match="give each replica more devices"):
        simulate(workload(), replace(engine_model, kv_tokens=100), Limits())


def test_flops_of_a_forecast_are_the_exact_count(engine_model):
    model = replace(engine_model, flops=FlopCount.of(LLAMA))
    run = simulate(one(100, 11), model, Limits())
    figures = forecast(one(100, 11), model, run, Slo(), SITE)
    assert figures["flops"] == prefill_flops(LLAMA, 100).total + decode_flops(LLAMA, 10, 101).total


def test_energy_is_busy_watts_idle_watts_and_overhead(engine_model):
    asked = one(arrival=9.0)
    run = simulate(asked, engine_model, Limits())
    figures = forecast(asked, engine_model, run, Slo(), SITE, host_watts=10.0)
    energy = figures["energy_joules"]
    assert energy["accelerator"] == pytest.approx(100 * run.busy_seconds)
    assert energy["idle"] == pytest.approx(40 * 9.0)
    assert energy["host"] == pytest.approx(10 * run.seconds)
    assert energy["total"] == pytest.approx(1.1 * (energy["accelerator"] + energy["idle"] + energy["host"]))
    assert figures["operational_grams"] == pytest.approx(energy["total"] / 3.6e6 * 400)
    assert figures["cost"]["devices"] == pytest.approx(2.0 * run.seconds / 3600)


def test_attainment_falls_with_the_bound(engine_model):
    asked = workload()
    run = simulate(asked, engine_model, Limits(4))
    ratios = [
        forecast(asked, engine_model, run, Slo.parse([f"ttft_p95<={bound}"]), SITE)["goodput_ratio"]
        for bound in (0.001, 0.05, 0.5, 100)
    ]
    assert ratios == sorted(ratios)
    assert (ratios[0], ratios[-1]) == (0, 1)


def test_a_closed_loop_keeps_so_many_requests_under_way_and_no_more(engine_model):
    workload = Synthetic(60, 1.0, Lengths("fixed", 20), Lengths("fixed", 30)).workload()
    alone = simulate(workload, engine_model, Limits(16), clients=1)
    four = simulate(workload, engine_model, Limits(16), clients=4)
    many = simulate(workload, engine_model, Limits(16), clients=60)
    assert alone.sequence_steps == alone.steps
    assert alone.ttft_seconds == pytest.approx(alone.ttft_seconds[0])
    assert alone.seconds == pytest.approx(alone.e2e_seconds.sum())
    assert four.sequence_steps / four.steps == pytest.approx(4, rel=0.1)
    assert many.seconds < four.seconds < alone.seconds
    # 16 in the engine, the others of the 60 wait
    assert many.ttft_seconds.max() > 10 * four.ttft_seconds.max()


def test_a_closed_loop_over_replicas_shares_the_clients(engine_model):
    workload = Synthetic(60, 1.0, Lengths("fixed", 20), Lengths("fixed", 30)).workload()
    one = simulate(workload.head(30), engine_model, Limits(16), clients=4)
    two = simulate(workload, engine_model, Limits(16), replicas=2, clients=8)
    assert two.seconds == pytest.approx(one.seconds)
    with pytest.raises(BadInput, match="one client for each replica"):
        simulate(workload, engine_model, Limits(16), replicas=2, clients=1)
