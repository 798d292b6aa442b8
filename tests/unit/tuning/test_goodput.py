import pytest

from serving.tuning.goodput import goodput, request_kept
from serving.tuning.outcome import Outcome
from serving.tuning.slo import Slo


def outcome(gaps=(), first=0.5, ended=3.0, error=None):
    return Outcome(0.0, 0.0, ended, first, tuple(gaps), output_tokens=len(gaps) + 1, error=error)


def test_the_gaps_of_an_answer_decide_not_their_mean():
    slow, pauses = outcome([0.1] * 20), outcome([0.01] * 18 + [0.9] * 2)
    assert [request_kept(one, Slo.parse(["itl_p95<=0.05"])) for one in (slow, pauses)] == [False, False]
    assert [request_kept(one, Slo.parse(["itl_p95<=0.12"])) for one in (slow, pauses)] == [True, False]
    assert [request_kept(one, Slo.parse(["itl_p50<=0.05"])) for one in (slow, pauses)] == [False, True]


@pytest.mark.parametrize(
    ("bound", "kept"),
    [("ttft_p95<=0.4", False), ("ttft_p95<=0.6", True), ("e2e_p95<=2", False), ("itl_p95<=1ms", True)],
)
def test_each_bound_holds_its_own_time(bound, kept):
    assert request_kept(outcome(), Slo.parse([bound])) is kept


def test_failed_requests_are_in_the_share_and_kept_nothing():
    outcomes = [outcome(), outcome(), outcome(error="HTTP 503"), outcome(first=None)]
    found = goodput(outcomes, Slo.parse(["ttft_p95<=1"]), 4.0)
    assert found == {"goodput_ratio": 0.5, "goodput_per_second": 0.5}
