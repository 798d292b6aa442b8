"""The machine of ``tests/unit/limits/machine.py`` on one real Redis, each replica with a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from cache.embedded import EmbeddedRedis
from cache.observer import SilentObserver
from cache.redis_link import RedisLink
from serving.limits.book import LimitBook
from serving.limits.redis_book import RedisBook
from tests.unit.limits.machine import Replicas

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as redis:
        yield redis


def test_replicas_in_any_order_exceed_nothing_and_lose_nothing(server: EmbeddedRedis) -> None:
    class OnRedis(Replicas):
        def books(self) -> list[LimitBook]:
            # the budget is generous: this machine may be busy
            return [RedisBook(RedisLink(server.url, observer=SilentObserver()), budget_seconds=10.0) for _ in range(2)]

    run_state_machine_as_test(
        OnRedis, settings=settings(max_examples=25, stateful_step_count=25, deadline=None, print_blob=True)
    )
