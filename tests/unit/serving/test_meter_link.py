from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.books import Counters
from metering.node import NodeMeter
from metering.settlement import Acknowledgement
from metering.work import EngineSteps, Served, WorkBatch, WorkRecord
from serving import meter_link
from serving.meter_link import MeterLink, flush_seconds
from tests.unit.serving.fakes import Books, ManualClock


def record(request_id: str = "r", **fields: int) -> WorkRecord:
    return WorkRecord(request_id, "m", "t", 1.0, 2.0, **fields)


class Rig:
    def __init__(self) -> None:
        self.books = Books()
        self.faults: list[str] = []
        self.clock = ManualClock()
        self.link = MeterLink("replica", self.books, flush_seconds=1.0, on_fault=self.faults.append, clock=self.clock)

    def work(self, request_id: str) -> WorkRecord:
        made = record(request_id, decode_tokens=1)
        self.link.trace(request_id, "t", "m").record(made)
        return made

    def hold_submissions(self) -> asyncio.Event:
        """Until it is set, the meter answers nothing."""
        gate, submit = asyncio.Event(), self.books.submit

        async def slow(batch: WorkBatch) -> Acknowledgement:
            await gate.wait()
            return await submit(batch)

        self.books.submit = slow  # type: ignore[method-assign]
        return gate


async def test_a_batch_holds_what_has_gathered_with_its_watermark() -> None:
    rig = Rig()
    made = rig.work("a")
    steps = EngineSteps("m", 1.0, 2.0, 3, 4)
    rig.link.steps(steps)
    rig.link.finished("a")
    rig.clock.advance(5.0)
    await rig.link.flush()
    await rig.link.flush()
    first, second = rig.books.batches
    assert first == WorkBatch("replica", 1, 1005.0, (made,), (steps,), ("a",))
    assert second == WorkBatch("replica", 2, 1005.0)


async def test_what_the_engine_still_holds_is_asked_for_before_each_batch() -> None:
    rig = Rig()
    made = record("late")
    rig.link.flush_engine = lambda: rig.link.trace("late", "t", "m").record(made)
    await rig.link.flush()
    assert rig.books.batches[0].records == (made,)


class OneNode(Books):
    """A node's meter in this process."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.node = NodeMeter(clock=clock)

    async def submit(self, batch: WorkBatch) -> Acknowledgement:
        return self.node.submit(batch)


async def prefill_of(seconds: float, window_seconds: float = 1.0) -> Counters:
    """What the node counts while an engine computes one prompt for so long, beside a replica without work."""
    clock = ManualClock()
    there = OneNode(clock)
    there.node.settings = replace(there.node.settings, window_seconds=window_seconds)
    every = flush_seconds(window_seconds)
    links = [MeterLink(name, there, flush_seconds=every, on_fault=lambda _: None, clock=clock) for name in "ab"]
    there.node.start()
    ticks, began, told = 0, clock(), False
    while clock() < began + seconds + 20:
        busy = clock() < began + seconds
        links[0].flush_engine = lambda busy=busy: began if busy else None  # type: ignore[misc]
        if ticks % round(every / 0.25) == 0:
            if not busy and not told:
                told = True
                links[0].trace("r", "t", "m").record(WorkRecord("r", "m", "t", began, began + seconds, 1000))
            for link in links:
                await link.flush()
        clock.advance(0.25)
        ticks += 1
        there.node.tick()
    return there.node.counters


@pytest.mark.parametrize(("seconds", "window_seconds"), [(4.0, 1.0), (8.0, 1.0), (4.0, 60.0), (6.0, 10.0)])
async def test_a_prompt_of_many_seconds_is_booked_where_it_was_computed(seconds: float, window_seconds: float) -> None:
    counters = await prefill_of(seconds, window_seconds)
    assert (counters.records, counters.late_records, counters.forced_windows) == (1, 0, 0)


async def test_a_step_beyond_the_meters_patience_is_late_and_holds_no_window_so_long_that_it_is_forced() -> None:
    counters = await prefill_of(30.0)
    assert (counters.records, counters.late_records, counters.forced_windows) == (1, 1, 0)


async def test_batches_are_kept_until_they_are_acknowledged_and_come_in_order() -> None:
    rig = Rig()
    rig.books.broken = True
    for name in "abc":
        rig.work(name)
        await rig.link.flush()
    assert rig.faults == ["report_kept_back"] * 3
    rig.books.broken = False
    rig.work("d")
    await rig.link.flush()
    assert [batch.sequence for batch in rig.books.batches] == [1, 2, 3, 4]
    assert [each.request_id for batch in rig.books.batches for each in batch.records] == list("abcd")


async def test_a_batch_whose_answer_was_lost_is_sent_again_as_it_was() -> None:
    rig = Rig()
    rig.work("a")
    rig.books.lose_answer = True
    await rig.link.flush()
    rig.books.lose_answer = False
    rig.work("b")
    await rig.link.flush()
    first, again, second = rig.books.batches
    assert first == again
    assert second.sequence == 2


async def test_beyond_ten_minutes_the_oldest_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_link, "_MAX_BATCHES_KEPT", 3)
    rig = Rig()
    rig.books.broken = True
    for _ in range(5):
        await rig.link.flush()
    assert rig.faults.count("report_dropped") == 2
    rig.books.broken = False
    await rig.link.flush()
    assert rig.faults.count("report_dropped") == 3
    assert [batch.sequence for batch in rig.books.batches] == [4, 5, 6]


async def test_a_batch_dropped_while_it_was_under_way_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_link, "_MAX_BATCHES_KEPT", 2)
    rig = Rig()
    gate = rig.hold_submissions()
    flushes = []
    for _ in range(3):
        flushes.append(asyncio.create_task(rig.link.flush()))
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*flushes)
    assert [batch.sequence for batch in rig.books.batches] == [1, 2, 3]


async def test_a_meter_that_never_answers_does_not_keep_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_link, "_SUBMIT_SECONDS", 0.001)
    rig = Rig()
    submit = rig.books.submit

    async def hang(batch: WorkBatch) -> Acknowledgement:
        await asyncio.Event().wait()
        raise AssertionError

    rig.books.submit = hang  # type: ignore[method-assign]
    rig.work("a")
    await rig.link.flush()
    assert rig.faults == ["report_kept_back"]
    rig.books.submit = submit  # type: ignore[method-assign]
    await rig.link.flush()
    assert [batch.sequence for batch in rig.books.batches] == [1, 2]


async def test_rates_come_back_with_the_acknowledgement() -> None:
    rig = Rig()
    assert rig.link.rates.power == "unknown"
    await rig.link.flush()
    assert rig.link.rates.power == "scripted"


async def test_a_meter_that_is_slow_gets_each_batch_once() -> None:
    rig = Rig()
    gate = rig.hold_submissions()
    flushes = []
    for name in "abc":
        rig.work(name)
        flushes.append(asyncio.create_task(rig.link.flush()))
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*flushes)
    assert [batch.sequence for batch in rig.books.batches] == [1, 2, 3]


@given(st.lists(st.sampled_from(["work", "flush", "break", "mend", "lose", "find"]), max_size=40))
def test_everything_arrives_once_or_is_repeated_identically_whatever_fails(events: list[str]) -> None:
    async def play() -> None:
        rig = Rig()
        made = []
        for number, event in enumerate(events):
            if event == "work":
                made.append(rig.work(str(number)))
            elif event == "flush":
                await rig.link.flush()
            elif event in ("break", "mend"):
                rig.books.broken = event == "break"
            else:
                rig.books.lose_answer = event == "lose"
        rig.books.broken = rig.books.lose_answer = False
        await rig.link.flush()
        by_sequence: dict[int, WorkBatch] = {}
        for batch in rig.books.batches:
            assert by_sequence.setdefault(batch.sequence, batch) == batch
        assert sorted(by_sequence) == list(range(1, len(by_sequence) + 1))
        arrived = [each for sequence in sorted(by_sequence) for each in by_sequence[sequence].records]
        assert arrived == made

    asyncio.run(play())


async def test_the_link_flushes_by_itself_and_once_more_at_its_end() -> None:
    books = Books()
    arrived = asyncio.Event()
    submit = books.submit

    async def noted(batch: WorkBatch) -> Acknowledgement:
        arrived.set()
        return await submit(batch)

    books.submit = noted  # type: ignore[method-assign]
    link = MeterLink("replica", books, flush_seconds=0.001, on_fault=lambda _: None)
    link.start()
    async with asyncio.timeout(10):
        await arrived.wait()
    link.trace("last", "t", "m").record(record("last"))
    await link.close()
    assert any(each.request_id == "last" for batch in books.batches for each in batch.records)
    assert [batch.last for batch in books.batches].index(True) == len(books.batches) - 1
    count = len(books.batches)
    await asyncio.sleep(0)
    assert len(books.batches) == count


async def test_a_trace_keeps_its_own_records() -> None:
    rig = Rig()
    one, two = rig.link.trace("1", "t", "m"), rig.link.trace("2", "t", "m")
    one.record(record("1", decode_tokens=3))
    two.record(record("2", decode_tokens=4))
    one.record(record("1", decode_tokens=2))
    assert (one.decoded_tokens, two.decoded_tokens) == (5, 4)


async def test_a_receipt_without_rates_says_what_it_does_not_know() -> None:
    rig = Rig()
    trace = rig.link.trace("a", "t", "m")
    trace.record(record("a", prefill_tokens=3))
    receipt = rig.link.provisional(trace, "MISS")
    assert (receipt.receipt_id, receipt.status, receipt.cache) == ("a", "provisional", "MISS")
    assert receipt.energy_joules is None
    assert receipt.mfu_ratio is None
    assert receipt.notes


async def test_a_hit_costs_its_own_cpu_time_and_avoids_the_rest() -> None:
    rig = Rig()
    link = MeterLink("replica", rig.books, flush_seconds=1.0, on_fault=lambda _: None, host_watts_per_core=10.0)
    original = replace(rig.link.provisional(rig.link.trace("a", "t", "m"), "MISS"))
    hit = link.hit("b", original, "HIT-EXACT", 0.002)
    assert hit.receipt_id == "b"
    assert hit.cache == "HIT-EXACT"
    assert hit.energy_joules is not None
    assert hit.energy_joules.total == pytest.approx(0.02)


async def test_answers_are_counted_by_model_and_tenant_and_verdicts_travel_with_the_end() -> None:
    rig = Rig()
    rig.link.finished("a", "BYPASS")
    rig.link.finished("b")
    for answer in (Served("m", "t", requests=1, output_tokens=3), Served("m", "t", requests=1, hits=1)):
        rig.link.served(answer)
    rig.link.served(Served("m", "u", requests=1))
    await rig.link.flush()
    await rig.link.flush()
    first, second = rig.books.batches
    assert first.finished == ("a", "b")
    assert first.verdicts == (("a", "BYPASS"),)
    assert first.served == (Served("m", "t", requests=2, hits=1, output_tokens=3), Served("m", "u", requests=1))
    assert (second.finished, second.verdicts, second.served) == ((), (), ())
