"""``make chaos``, short: the same load, the same kills, the same judgement."""

from __future__ import annotations

import pytest

from tests.bench.chaos import faults, overload

pytestmark = [pytest.mark.ray, pytest.mark.redis]


def test_every_request_ends_properly_while_parts_are_killed() -> None:
    result = faults.run("simulated", seconds=25.0, pause_seconds=2.0, clients=6)
    assert result["defects"] == []
    assert result["batch_lines"] == {"total": 100, "completed": 100, "failed": 0}
    assert {row["killed"]: row["times"] > 0 for row in result["rows"]} == {
        "gateway replica": True,
        "redis": True,
        "proxy": True,
    }


@pytest.mark.long
def test_at_five_times_the_capacity_what_is_accepted_is_answered_in_time() -> None:
    result = overload.run(seconds=12.0, best_seconds=4.0)
    assert result["defects"] == []
    assert set(result["ends"]) == {"answer", "refusal"}
    assert set(result["refusals"]) <= {"429 queue_full", "429 deadline_unmeetable"}
    assert result["met"]["p99 of the accepted within its deadline"]
