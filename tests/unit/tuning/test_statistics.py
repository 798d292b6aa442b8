import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import BadInput
from serving.tuning.outcome import Cost, Outcome
from serving.tuning.slo import Slo
from serving.tuning.statistics import DevicePeaks, paired_ratio, summarise


def outcome(start=0.0, first=0.2, end=1.0, tokens=5, **changes):
    values = {
        "intended_seconds": start,
        "sent_seconds": start,
        "first_token_seconds": start + first,
        "ended_seconds": start + end,
        "token_gaps_seconds": ((end - first) / (tokens - 1),) * (tokens - 1),
        "output_tokens": tokens,
        "prompt_tokens": 10,
    }
    return Outcome(**(values | changes))


def test_figures_of_two_answers():
    cost = Cost(joules=2.0, operational_grams=0.01, flops=1e9, method="modelled", cache="MISS")
    figures = summarise([outcome(cost=cost), outcome(1.0, cost=cost)], peaks=DevicePeaks(1e9))
    assert figures["output_tokens_per_second"] == pytest.approx(5.0)
    assert figures["joules_per_output_token"] == pytest.approx(0.4)
    assert figures["grams_per_1k_output_tokens"] == pytest.approx(2.0)
    assert figures["mfu_ratio"] == pytest.approx(1.0)
    assert figures["itl_p95_seconds"] == pytest.approx(0.2)
    assert figures["ttft_p50_seconds"] == pytest.approx(0.2)


def test_cost_is_told_where_the_receipts_have_it():
    figures = summarise([outcome(cost=Cost(price=0.02)), outcome(1.0, cost=Cost(price=0.01))])
    assert figures["cost"] == pytest.approx(0.03)
    assert figures["cost_per_1k_output_tokens"] == pytest.approx(3.0)
    assert "cost" not in summarise([outcome()])


def test_goodput_counts_requests_that_kept_every_bound_and_failures_never():
    slo = Slo.parse(["ttft_p95<=300ms", "e2e_p99<=2s"])
    outcomes = [outcome(), outcome(first=0.5), outcome(end=3.0), outcome(error="HTTP 429")]
    figures = summarise(outcomes, slo)
    assert figures["goodput_ratio"] == 0.25
    assert figures["errors"] == {"HTTP 429": 1}


def test_a_sum_with_an_unknown_part_is_unknown():
    figures = summarise([outcome(cost=Cost(joules=1.0)), outcome()])
    assert figures["joules"] is None
    assert figures["joules_per_output_token"] is None


def test_cache_hits_are_counted_and_their_flops_are_not_work():
    hit = outcome(cost=Cost(joules=0.1, flops=1e9, cache="HIT-EXACT"))
    miss = outcome(cost=Cost(joules=1.0, flops=1e9, cache="MISS"))
    figures = summarise([hit, miss])
    assert figures["cache_hit_ratio"] == 0.5
    assert figures["flops"] == 1e9


def test_nothing_sent_is_refused():
    with pytest.raises(BadInput):
        summarise([])


def test_a_run_where_all_failed_has_no_percentiles():
    figures = summarise([outcome(error="HTTP 503")])
    assert figures["ttft_p95_seconds"] is None
    assert figures["completed"] == 0


@pytest.mark.parametrize("text", ["ttft<=1", "ttft_p90<=1", "ttft_p95>=1", "itl_p95<=0", "itl_p95<=-1", "e2e_p99<=x"])
def test_an_slo_that_is_none_is_refused(text):
    with pytest.raises(BadInput, match="SLO"):
        Slo.parse([text])


def test_an_slo_says_by_how_much_it_is_broken():
    slo = Slo.parse(["ttft_p95<=500ms", "itl_p95 < 0.05"])
    figures = {"ttft_p95_seconds": 1.0, "itl_p95_seconds": 0.04}
    assert slo.worst_excess(figures) == pytest.approx(1.0)
    assert not slo.met(figures)
    assert slo.met(figures | {"ttft_p95_seconds": 0.5})
    assert not slo.met({"ttft_p95_seconds": 0.1})


def test_receipts_that_were_not_final_are_counted():
    costs = (Cost(status="provisional"), Cost(status="final"), Cost())
    assert summarise([outcome(cost=cost) for cost in costs])["provisional_receipts"] == 1


@given(values=st.lists(st.floats(0.1, 10), min_size=2, max_size=8))
def test_the_interval_of_a_thing_against_itself_holds_one(values):
    interval = paired_ratio(values, values)
    assert interval.low <= 1.0 <= interval.high


def test_a_clear_gain_has_an_interval_off_one():
    interval = paired_ratio([0.5, 0.52, 0.51], [1.0, 1.05, 0.98])
    assert interval.high < 0.6
    for ours, base in (([1.0], []), ([], []), ([1.0], [0.0])):
        with pytest.raises(BadInput):
            paired_ratio(ours, base)


def test_a_single_pair_has_no_interval_and_says_so():
    interval = paired_ratio([2.0], [4.0])
    assert (interval.value, interval.low, interval.high) == (0.5, None, None)
    assert str(interval) == "0.5 (one pair of runs: no interval)"


@pytest.mark.parametrize("pairs", [2, 3, 5])
def test_a_95_percent_interval_holds_the_true_ratio_in_95_of_100(pairs):
    random = np.random.default_rng(7)
    held, draws = 0, 4000
    for _ in range(draws):
        drift = random.normal(0, 0.3, pairs)
        ours, base = (np.exp(drift + random.normal(0, 0.05, pairs)) for _ in range(2))
        interval = paired_ratio((0.8 * ours).tolist(), base.tolist())
        held += interval.low <= 0.8 <= interval.high
    # three standard errors of a share of 4,000
    assert abs(held / draws - 0.95) < 0.0103
