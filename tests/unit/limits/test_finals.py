"""Accounts end at the sum of the final receipts, whatever was settled first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.node import NodeMeter
from metering.receipt import EnergyJoules, Receipt
from metering.settlement import Acknowledgement, IntensityStamp
from metering.work import WorkBatch, WorkRecord
from serving.access import KeyRing
from serving.engines.base import EngineRequest, WorkSink
from serving.limits.book import NANO, Use
from serving.limits.desk import Desk
from serving.limits.finals import FinalFigures, energy_use
from serving.limits.limiter import TenantLimiter
from serving.meter_link import MeterLink
from serving.tenancy.tenant import LimitSettings, TenantSettings
from tests.unit.limits.laws import NOON
from tests.unit.metering.node.conftest import World
from tests.unit.serving.conftest import House
from tests.unit.serving.fakes import HeldEngine, ManualClock

FREE = LimitSettings()


def receipt(number: int, joules: float | None, grams: float | None, embodied: float | None = None) -> Receipt:
    energy = None if joules is None else EnergyJoules(accelerator=joules)
    cost = None if joules is None else {"total": joules / 3}
    return Receipt(str(number), "final", None, None, None, energy, grams, embodied, cost=cost)


class Bench:
    def __init__(self) -> None:
        self.clock, self.wall = ManualClock(), ManualClock(NOON)
        self.faults: list[str] = []
        self.receipts: dict[str, Receipt] = {}
        self.away = False
        self.limiter = TenantLimiter(None, wall=self.wall)
        self.finals = FinalFigures(
            self.limiter, self._fetch, period_seconds=1, on_fault=self.faults.append, clock=self.clock, wall=self.wall
        )

    async def _fetch(self, keys: Sequence[tuple[str, str]]) -> list[Receipt | None]:
        if self.away:
            raise ConnectionError("the meter is away")
        return [self.receipts.get(receipt_id) for _, receipt_id in keys]

    async def request(self, number: int, provisional: Use, limits: LimitSettings = FREE) -> None:
        admission = await self.limiter.admit("t", limits, tokens=1, lifetime_seconds=1)
        self.limiter.settle(admission, provisional)
        self.finals.expect(admission, str(number), provisional)

    async def usage(self) -> Use:
        await self.limiter.close()
        return (await self.limiter.usage("t"))[0]


amounts = st.one_of(st.none(), st.floats(0, 1e4))


@given(
    requests=st.lists(st.tuples(st.integers(0, 10**9), amounts, amounts, amounts), max_size=20),
    order=st.randoms(use_true_random=False),
)
async def test_the_account_is_the_sum_of_the_final_receipts(requests: list[Any], order: Any) -> None:
    bench = Bench()
    expected = Use(requests=0)
    waiting = []
    for number, (settled, joules, grams, embodied) in enumerate(requests):
        provisional = Use(
            microjoules=settled, operational_nanograms=settled // 2, embodied_nanograms=settled // 3, nanocost=7
        )
        await bench.request(number, provisional)
        final = receipt(number, joules, grams, embodied)
        waiting.append((str(number), final))
        told = energy_use(final)
        expected += Use(
            microjoules=provisional.microjoules if joules is None else told.microjoules,
            operational_nanograms=provisional.operational_nanograms if grams is None else told.operational_nanograms,
            embodied_nanograms=provisional.embodied_nanograms if embodied is None else told.embodied_nanograms,
            nanocost=provisional.nanocost if joules is None else told.nanocost,
        )
    order.shuffle(waiting)
    for receipt_id, final in waiting:
        bench.receipts[receipt_id] = final
        if order.random() < 0.5:
            await bench.finals.collect()
    await bench.finals.collect()
    assert len(bench.finals) == 0
    assert await bench.usage() == expected
    assert bench.faults == []


async def test_a_meter_that_is_away_loses_nothing() -> None:
    bench = Bench()
    await bench.request(1, Use(microjoules=5))
    bench.receipts["1"] = receipt(1, 9e-6, None)
    bench.away = True
    with pytest.raises(ConnectionError):
        await bench.finals.collect()
    bench.away = False
    await bench.finals.collect()
    assert (await bench.usage()).microjoules == 9


async def test_what_never_becomes_final_stays_as_it_was_settled_and_is_counted() -> None:
    bench = Bench()
    await bench.request(1, Use(microjoules=5))
    bench.clock.advance(119)
    await bench.finals.collect()
    assert len(bench.finals) == 1
    bench.clock.advance(2)
    await bench.finals.collect()
    assert (len(bench.finals), bench.faults) == (0, ["final_missing"])
    assert (await bench.usage()).microjoules == 5


async def test_a_budget_that_the_final_receipt_overdraws_refuses_the_next() -> None:
    bench = Bench()
    limits = LimitSettings(grams_per_day=1.0)
    await bench.request(1, Use(operational_nanograms=NANO // 2), limits)
    assert (await bench.limiter.admit("t", limits, tokens=0, lifetime_seconds=1)).verdict is not None
    bench.receipts["1"] = receipt(1, None, 1.5)
    await bench.finals.collect()
    await bench.limiter.close()
    with pytest.raises(Exception, match="carbon budget") as refused:
        await bench.limiter.admit("t", limits, tokens=0, lifetime_seconds=1)
    assert getattr(refused.value, "code", None) == "carbon_budget_exceeded"


class NodeClient:
    """``NodeMeterClient`` over a real node meter, whose time is moved by hand."""

    def __init__(self, node: NodeMeter, clock: ManualClock) -> None:
        self.node, self._clock = node, clock

    async def submit(self, batch: WorkBatch) -> Acknowledgement:
        return self.node.submit(batch, self._clock())

    async def receipt(self, tenant: str, request_id: str) -> Receipt | None:
        return self.node.receipt(tenant, request_id, self._clock())

    async def finals(self, keys: Sequence[tuple[str, str]]) -> list[Receipt | None]:
        found = [self.node.final(*key, self._clock()) for key in keys]
        return [None if final is None else final.receipt for final in found]


class WorkingEngine(HeldEngine):
    """Each request works for half a second of the clock, more tokens the later it comes."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def run(self, request: EngineRequest, work: WorkSink) -> Any:
        started = self._clock()
        self._clock.advance(0.5)
        tokens = 5 + len(self.requests)

        def worked(record: WorkRecord) -> None:
            own = {"prefill_tokens": tokens, "decode_tokens": 2 * tokens, "first_context_tokens": tokens}
            work(WorkRecord(request.request_id, "m", request.tenant, started, self._clock(), **own))

        return super().run(request, worked)


async def test_the_books_of_quotas_equal_the_final_receipts_of_a_real_node_meter() -> None:
    clock = ManualClock(1000.0)
    node = World.node(World.constant(), now=clock())
    node.set_intensity(IntensityStamp(360.0, "DEU", "static 2023"))
    client = NodeClient(node, clock)
    link = MeterLink("a", client, flush_seconds=1.0, on_fault=lambda _: None, clock=clock)
    grants = {"acme": TenantSettings(limits=LimitSettings(grams_per_day=50.0))}
    ring = KeyRing({"acme": "key", "zeta": "z"}, tenants=grants)
    limiter = TenantLimiter(None)
    finals = FinalFigures(limiter, link.finals, period_seconds=1.0, clock=clock)
    house = House(keys=ring, engine=WorkingEngine(clock))
    house.gateway.runs.meter = link
    desk = Desk(house.gateway, limiter, ring.settings, finals=finals)
    house = _with_desk(house, desk)
    ids: dict[str, list[str]] = {"acme": [], "zeta": []}
    for number in range(12):
        tenant, key = ("acme", "key") if number % 3 else ("zeta", "z")
        text = "again" if number in (4, 5) else str(number)
        reply = await house.send(house.chat(text, stream=number % 2 == 1), authorization=f"Bearer {key}")
        assert reply.status == 200
        told = (reply.chunks[-1] if number % 2 else reply.json)["usage"]["wattgate"]
        if told["cache"] == "MISS":
            ids[tenant].append(told["receipt_id"])
        await link.flush()
        clock.advance(0.7)
        node.tick(clock())
    for _ in range(12):
        clock.advance(1.0)
        await link.flush()
        node.tick(clock())
        await finals.collect()
    assert len(finals) == 0
    # what is on its way to the books
    await limiter.close()
    for tenant, receipts in ids.items():
        total = Use(requests=0)
        for receipt_id in receipts:
            final = await client.receipt(tenant, receipt_id)
            assert final is not None
            assert final.status == "final"
            total += energy_use(final)
        assert total.microjoules > 0
        assert total.operational_nanograms > 0
        day, _, _ = await limiter.usage(tenant)
        assert day.microjoules == total.microjoules
        assert day.nanograms == total.nanograms
    assert sum(map(len, ids.values())) == 11, "one was a hit"


def _with_desk(house: House, desk: Desk) -> House:
    from prometheus_client import generate_latest

    from serving.api.app import build_app

    house.app = build_app(
        house.gateway,
        house.keys,
        desk=desk,
        max_body_bytes=65536,
        max_concurrent_requests=8,
        request_timeout_seconds=30.0,
        scrape=lambda: (generate_latest(house.registry), "text/plain"),
    )
    return house


async def test_it_collects_by_itself_until_closed() -> None:
    bench = Bench()
    await bench.request(1, Use(microjoules=5))
    bench.receipts["1"] = receipt(1, 9e-6, None)
    quick = FinalFigures(bench.limiter, bench._fetch, period_seconds=0.0, clock=bench.clock, wall=bench.wall)
    quick._open = bench.finals._open
    quick.start()
    async with asyncio.timeout(10):
        while len(quick):  # noqa: ASYNC110
            await asyncio.sleep(0)
    await quick.close()
    assert (await bench.usage()).microjoules == 9
