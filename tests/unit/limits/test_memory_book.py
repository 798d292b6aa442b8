from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import settings

from serving.limits.book import LimitBook, periods, seconds_left
from serving.limits.memory_book import MemoryBook
from tests.unit.limits.laws import LAWS, NOON
from tests.unit.limits.machine import Replicas


class OneProcess(Replicas):
    def books(self) -> list[LimitBook]:
        return [MemoryBook()] * 2


TestOneProcess = OneProcess.TestCase
TestOneProcess.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
async def test_law(law: Callable[[LimitBook], Awaitable[None]]) -> None:
    await law(MemoryBook())


@pytest.mark.parametrize(
    ("at", "day", "month"),
    [
        (NOON, 12 * 3600, 30 * 86400 + 12 * 3600),
        (NOON + 12 * 3600 - 1, 1, 30 * 86400 + 1),
        (1_796_083_200.0, 86400, 31 * 86400),
    ],
)
def test_budgets_end_with_the_utc_day_and_month(at: float, day: float, month: float) -> None:
    assert (seconds_left(at, "carbon_day"), seconds_left(at, "carbon_month")) == (day, month)
    assert periods(at)[0] != periods(at + day)[0]
    assert periods(at)[1] != periods(at + month)[1]
    assert periods(at + month - 1)[1] == periods(at)[1]
