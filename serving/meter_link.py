"""A replica's line to the node's meter: work goes out in batches, rates come back.

Batches are kept until they are acknowledged, so a meter that restarts or is slow loses nothing; the
meter books each once, by (source, sequence).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol

from metering.node_settings import GRACE_SECONDS
from metering.receipt import Receipt
from metering.settlement import Acknowledgement, Rates, hit_receipt, provisional
from metering.weights import WorkModel
from metering.work import EngineSteps, Served, WorkBatch, WorkRecord
from serving.engines.base import BookedElsewhere, EngineAnswer

_MAX_BATCHES_KEPT = 600
"""Ten minutes of unacknowledged windows; beyond that the oldest is dropped and counted."""
_SLOWEST_FLUSH_SECONDS = 1.0
"""However long the windows: at their end the meter waits for the next report, and not for half a window more."""
_SUBMIT_SECONDS = 10.0
"""For the meter to answer; then the batch is sent again, and what has gathered meanwhile goes into batches."""


_SUMMED = tuple(field.name for field in fields(Served) if field.name not in ("model", "tenant"))


class NodeMeterClient(Protocol):
    """Where the node's books are: an actor of the node, or in the process for tests."""

    async def submit(self, batch: WorkBatch) -> Acknowledgement: ...

    async def receipt(self, tenant: str, request_id: str) -> Receipt | None: ...

    async def finals(self, keys: Sequence[tuple[str, str]]) -> list[Receipt | None]:
        """The final receipt of each (tenant, request id); None where there is none yet."""


def flush_seconds(window_seconds: float) -> float:
    """How often to report, for windows of a length."""
    return min(window_seconds / 2, _SLOWEST_FLUSH_SECONDS)


@dataclass(slots=True)
class Trace:
    """All work records of one request, gathered while it runs."""

    request_id: str
    tenant: str
    model: str
    sink: Callable[[WorkRecord], None]
    records: list[WorkRecord] = field(default_factory=list)
    priced: tuple[int, Rates, str, Receipt] | None = None
    """The last provisional receipt, with the number of records, the rates and the verdict that it was made from."""
    elsewhere: BookedElsewhere | None = None
    fallback: str | None = None

    def follow(self, answer: EngineAnswer) -> None:
        """Take over where the answer comes from: another model's engine, or one whose work another process books."""
        if answer.fallback is not None:
            self.model = self.fallback = answer.fallback
        if answer.elsewhere is not None:
            self.elsewhere = answer.elsewhere
            self.records = answer.elsewhere.records

    def record(self, record: WorkRecord) -> None:
        self.records.append(record)
        self.sink(record)

    @property
    def decoded_tokens(self) -> int:
        return sum(record.decode_tokens for record in self.records)


class MeterLink:
    """Not thread safe: lives on the gateway's event loop."""

    def __init__(
        self,
        source: str,
        client: NodeMeterClient,
        *,
        flush_seconds: float,
        on_fault: Callable[[str], None],
        host_watts_per_core: float | None = None,
        flush_engine: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self.client = client
        self._flush_seconds = flush_seconds
        # a window is booked without those that are behind by more than the grace: what we hold is known there a flush
        # later, and another flush is for the way
        self._hold_seconds = max(0.0, GRACE_SECONDS - 2 * flush_seconds)
        self._on_fault = on_fault
        self._host_watts_per_core = host_watts_per_core
        self.flush_engine = flush_engine
        self._clock = clock
        self._records: list[WorkRecord] = []
        self._steps: list[EngineSteps] = []
        self._finished: list[str] = []
        self._verdicts: list[tuple[str, str]] = []
        self._served: dict[tuple[str, str], Served] = {}
        self._unacknowledged: deque[WorkBatch] = deque()
        self._sequence = 0
        self._task: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self.profiles: Mapping[str, WorkModel] = {}
        self.rates = Rates()

    def trace(self, request_id: str, tenant: str, model: str) -> Trace:
        return Trace(request_id, tenant, model, self._records.append)

    def steps(self, steps: EngineSteps) -> None:
        self._steps.append(steps)

    def finished(self, request_id: str, cache: str = "MISS") -> None:
        """The request will send no more work: its receipt becomes final when its windows close."""
        self._finished.append(request_id)
        if cache != "MISS":
            self._verdicts.append((request_id, cache))

    def served(self, answer: Served) -> None:
        """Add a request that has ended to the counts of its model and tenant."""
        key = (answer.model, answer.tenant)
        before = self._served.get(key, Served(*key))
        sums = {name: getattr(before, name) + getattr(answer, name) for name in _SUMMED}
        self._served[key] = replace(before, **sums)

    def provisional(self, trace: Trace, cache: str) -> Receipt:
        told = None if trace.elsewhere is None else trace.elsewhere.receipt
        receipt = self._priced(trace, cache) if told is None else replace(told, cache=cache)
        if trace.fallback is None:
            return receipt
        note = f"Answered by {trace.fallback}: the engine of the model asked for was away."
        return replace(receipt, notes=(*receipt.notes, note))

    def _priced(self, trace: Trace, cache: str) -> Receipt:
        # the answer and its tenant's quota ask for the same receipt, one right after the other
        made_from, records = trace.priced, len(trace.records)
        if made_from is not None and made_from[0] == records and made_from[1] is self.rates and made_from[2] == cache:
            return made_from[3]
        receipt = provisional(trace.request_id, trace.records, self.rates, self.profiles.get(trace.model), cache=cache)
        trace.priced = (records, self.rates, cache, receipt)
        return receipt

    def expected_grams(self, call: str, tenant: str, model: str, prompt_tokens: int, output_tokens: int) -> float:
        """CO2e of work that is still to be done, at the rates of the last closed window; 0 where none are known.
        The idle of the time that it will take is not in it."""
        at = self._clock()
        work = WorkRecord(call, model, tenant, at, at, prompt_tokens, 0, output_tokens, prompt_tokens + 1)
        receipt = provisional(call, (work,), self.rates, self.profiles.get(model))
        return (receipt.operational_grams or 0.0) + (receipt.embodied_grams or 0.0)

    def hit(self, request_id: str, original: Receipt | None, cache: str, lookup_cpu_seconds: float) -> Receipt:
        return hit_receipt(
            request_id,
            original,
            cache=cache,
            lookup_cpu_seconds=lookup_cpu_seconds,
            host_watts_per_core=self._host_watts_per_core,
            pue=self.rates.pue,
            intensity=self.rates.intensity,
            price_per_kwh=self.rates.price_per_kwh,
        )

    async def receipt(self, tenant: str, request_id: str) -> Receipt | None:
        """The final receipt, as far as the node still has it."""
        return await self.client.receipt(tenant, request_id)

    async def finals(self, keys: Sequence[tuple[str, str]]) -> list[Receipt | None]:
        """The final receipt of each (tenant, request id); None where there is none yet."""
        return await self.client.finals(keys)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="meter-link")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._flush_seconds)
            await self.flush()

    async def flush(self, *, last: bool = False) -> None:
        """Send what has gathered. A meter that cannot be reached is counted; nothing is lost by it. ``last``: no batch
        comes after it."""
        pending = self.flush_engine()
        now = self._clock()
        # work under way holds its window open, but never so long that the node stops waiting for us
        watermark = now if pending is None else max(pending, now - self._hold_seconds)
        self._sequence += 1
        self._unacknowledged.append(
            WorkBatch(
                source=self._source,
                sequence=self._sequence,
                watermark_seconds=watermark,
                records=tuple(self._records),
                steps=tuple(self._steps),
                finished=tuple(self._finished),
                verdicts=tuple(self._verdicts),
                served=tuple(self._served.values()),
                last=last,
            )
        )
        self._records.clear()
        self._steps.clear()
        self._finished.clear()
        self._verdicts.clear()
        self._served.clear()
        if len(self._unacknowledged) > _MAX_BATCHES_KEPT:
            self._unacknowledged.popleft()
            self._on_fault("report_dropped")
        async with self._sending:
            while self._unacknowledged:
                batch = self._unacknowledged[0]
                try:
                    async with asyncio.timeout(_SUBMIT_SECONDS):
                        acknowledgement = await self.client.submit(batch)
                except asyncio.CancelledError:
                    raise
                except Exception:
                    self._on_fault("report_kept_back")
                    return
                # it may have been dropped while it was under way
                if self._unacknowledged and self._unacknowledged[0] is batch:
                    self._unacknowledged.popleft()
                self.rates = acknowledgement.rates

    async def close(self) -> None:
        """Send the last batch, and that it is the last: no window waits for us after it. Used on an orderly end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self.flush(last=True)
