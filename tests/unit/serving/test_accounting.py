from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serving.accounting import UNKNOWN, begin_accounts, count_request, first_token_parts
from serving.call import Call
from serving.metrics import Metrics
from tests.unit.serving.conftest import CHAT, House

PART = "wattgate_time_to_first_token_part_seconds"
seconds = st.floats(0, 1e4)


def call(**filled: float | None) -> Call:
    call = Call("id", "acme", CHAT, {"model": "m"}, received_seconds=100.0, deadline_seconds=400.0)
    for name, value in filled.items():
        setattr(call, name, value)
    return call


def test_what_alerts_take_rates_of_stands_at_zero_before_the_first_request() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    begin_accounts(["m", UNKNOWN], metrics)
    first_tokens = {"model": "m", "le": "2.5"}
    assert registry.get_sample_value("wattgate_time_to_first_token_seconds_bucket", first_tokens) == 0
    kept = "wattgate_objective_requests_total"
    assert {registry.get_sample_value(kept, {"model": "m", "kept": said}) for said in ("yes", "no")} == {0.0}
    for status in ("200", "404", "499", "503"):
        count_request(metrics, "m", "t", "chat/completions", status, "MISS")
    assert registry.get_sample_value(kept, {"model": "m", "kept": "yes"}) == 3
    assert registry.get_sample_value(kept, {"model": "m", "kept": "no"}) == 1
    assert registry.get_sample_value(kept, {"model": UNKNOWN, "kept": "no"}) == 0


def test_the_time_to_the_first_token_is_split_where_the_engine_was_asked() -> None:
    parts = first_token_parts(call(queue_seconds=2.0, engine_asked_seconds=102.5, first_token_seconds=107.5))
    assert dict(parts) == {"queue": 2.0, "engine": 5.0, "gateway": 0.5}


@given(before=seconds, queued=seconds, after=seconds, engine=seconds)
def test_the_parts_add_up_to_the_whole(before: float, queued: float, after: float, engine: float) -> None:
    asked = 100.0 + before + queued + after
    parts = dict(
        first_token_parts(call(queue_seconds=queued, engine_asked_seconds=asked, first_token_seconds=asked + engine))
    )
    assert sum(parts.values()) == pytest.approx(asked + engine - 100.0, abs=1e-6)
    assert min(parts.values()) >= 0


def test_a_queue_that_timed_itself_longer_leaves_nothing_to_the_gateway() -> None:
    parts = first_token_parts(call(queue_seconds=2.6, engine_asked_seconds=102.5, first_token_seconds=103.5))
    assert dict(parts) == {"queue": 2.6, "engine": 1.0, "gateway": 0.0}


@pytest.mark.parametrize("missing", ["engine_asked_seconds", "first_token_seconds"])
def test_without_a_run_of_its_own_there_are_no_parts(missing: str) -> None:
    known = {"engine_asked_seconds": 101.0, "first_token_seconds": 102.0}
    assert first_token_parts(call(**(known | {missing: None}))) == ()


async def test_each_stream_of_the_engine_is_split_once_and_a_hit_is_not(house: House) -> None:
    for _ in range(2):
        await house.send(house.chat(stream=True))
    parts = [house.count(f"{PART}_count", model="m", part=part) for part in ("gateway", "queue", "engine")]
    assert parts == [1, 1, 1]
    whole = house.count("wattgate_time_to_first_token_seconds_sum", model="m")
    assert house.count(f"{PART}_sum", model="m") == pytest.approx(whole, rel=1e-6)
