from __future__ import annotations

from cache.breaker import CircuitBreaker
from tests.unit.cache.fakes import ManualClock


class Kit:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.changes: list[bool] = []
        self.breaker = CircuitBreaker(
            monotonic=self.clock, failures=3, open_seconds=1.0, longest_open_seconds=4.0, changed=self.changes.append
        )

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.breaker.failed()


def test_it_opens_after_three_failures_in_a_row() -> None:
    kit = Kit()
    kit.fail(2)
    kit.breaker.succeeded()
    kit.fail(2)
    assert not kit.breaker.open
    kit.fail(1)
    assert kit.breaker.open
    assert kit.changes == [True]


def test_one_probe_per_interval_is_due_while_open() -> None:
    kit = Kit()
    assert not kit.breaker.probe_due()
    kit.fail(3)
    assert not kit.breaker.probe_due()
    kit.clock.seconds += 1.0
    assert [kit.breaker.probe_due() for _ in range(3)] == [True, False, False]
    kit.clock.seconds += 1.0
    assert kit.breaker.probe_due()


def test_a_good_probe_closes_it_and_forgets_the_failures() -> None:
    kit = Kit()
    kit.fail(3)
    kit.clock.seconds += 1.0
    assert kit.breaker.probe_due()
    kit.breaker.succeeded()
    assert not kit.breaker.open
    kit.fail(2)
    assert not kit.breaker.open
    assert kit.changes == [True, False]


def test_bad_probes_come_at_twice_the_time_up_to_the_longest() -> None:
    kit = Kit()
    kit.fail(3)
    gaps = []
    for _ in range(4):
        gap = 0.0
        while not kit.breaker.probe_due():
            kit.clock.seconds += 0.5
            gap += 0.5
        gaps.append(gap)
        kit.breaker.failed(probe=True)
    assert gaps == [1.0, 2.0, 4.0, 4.0]


def test_calls_that_were_under_way_when_it_opened_change_nothing() -> None:
    kit = Kit()
    kit.fail(10)
    kit.clock.seconds += 1.0
    assert kit.breaker.probe_due()
    assert kit.changes == [True]
