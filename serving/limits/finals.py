"""Accounts follow the final receipts: what a request was settled with is corrected once its windows have closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from metering.receipt import Receipt
from serving.limits.book import MICRO, NANO, NOTHING, Use
from serving.limits.limiter import Admission, TenantLimiter

log = logging.getLogger("wattgate")

Fetch = Callable[[Sequence[tuple[str, str]]], Awaitable[Sequence[Receipt | None]]]
"""(tenant, receipt id) of each to its final receipt; None where it is not final yet."""

_AT_ONCE = 500
_GIVEN_UP_SECONDS = 120.0
"""Windows close within seconds: what is not final by then is unknown to the meter (it was restarted)."""
_MOST_OPEN = 100_000


@dataclass(frozen=True, slots=True)
class _Open:
    admission: Admission
    receipt_id: str
    settled: Use
    wall_seconds: float
    """Of the settlement: the correction belongs to its day and month."""
    since_seconds: float


class FinalFigures:
    """Lives on the gateway's event loop. What it holds when its process ends stays settled as it was.

    ``on_fault`` gets ``final_missing`` for each request that keeps its provisional figures.
    """

    def __init__(
        self,
        limiter: TenantLimiter,
        fetch: Fetch,
        *,
        period_seconds: float,
        on_fault: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._limiter = limiter
        self._fetch = fetch
        self._period_seconds = period_seconds
        self._on_fault = on_fault
        self._clock = clock
        self._wall = wall
        self._open: deque[_Open] = deque()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def expect(self, admission: Admission, receipt_id: str, settled: Use) -> None:
        """A request was settled with its provisional receipt."""
        self._open.append(_Open(admission, receipt_id, settled, self._wall(), self._clock()))
        if len(self._open) > _MOST_OPEN:
            self._open.popleft()
            self._on_fault("final_missing")

    async def collect(self) -> None:
        """Book what has become final since."""
        for _ in range(-(-len(self._open) // _AT_ONCE)):
            some = [self._open.popleft() for _ in range(min(_AT_ONCE, len(self._open)))]
            try:
                receipts = await self._fetch([(one.admission.tenant, one.receipt_id) for one in some])
            except BaseException:
                self._open.extendleft(reversed(some))
                raise
            for one, receipt in zip(some, receipts, strict=True):
                self._take(one, receipt)

    def _take(self, one: _Open, receipt: Receipt | None) -> None:
        if receipt is not None:
            more = difference(receipt, one.settled)
            if more != NOTHING:
                self._limiter.correct(one.admission, more, one.wall_seconds)
        elif self._clock() - one.since_seconds > _GIVEN_UP_SECONDS:
            self._on_fault("final_missing")
        else:
            self._open.append(one)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="final-figures")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_seconds)
            try:
                await self.collect()
            except Exception as error:
                # the meter is away: they are asked for again
                self._on_fault("finals")
                log.info("final receipts cannot be had: %s", error)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def energy_use(receipt: Receipt) -> Use:
    """A receipt's energy, carbon and cost in the account's integers; unknown is booked as nothing."""
    joules = receipt.energy_joules.total if receipt.energy_joules is not None else 0.0
    return Use(
        requests=0,
        microjoules=max(0, round(joules * MICRO)),
        operational_nanograms=max(0, round((receipt.operational_grams or 0.0) * NANO)),
        embodied_nanograms=max(0, round((receipt.embodied_grams or 0.0) * NANO)),
        nanocost=max(0, round((receipt.cost or {}).get("total", 0.0) * NANO)),
    )


def difference(final: Receipt, settled: Use) -> Use:
    """What the final receipt says more than was settled; where it knows nothing, what was settled stays."""
    use = energy_use(final)
    return Use(
        requests=0,
        microjoules=0 if final.energy_joules is None else use.microjoules - settled.microjoules,
        operational_nanograms=0
        if final.operational_grams is None
        else use.operational_nanograms - settled.operational_nanograms,
        embodied_nanograms=0 if final.embodied_grams is None else use.embodied_nanograms - settled.embodied_nanograms,
        nanocost=0 if final.cost is None else use.nanocost - settled.nanocost,
    )
