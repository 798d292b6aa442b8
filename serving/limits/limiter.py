"""What a tenant may still use: asked before anything is spent, settled with what was really used."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cache.observer import Loss
from cache.store import StoreUnavailable
from serving.errors import EngineUnavailable, RateLimited
from serving.limits.book import NANO, NOTHING, Ask, LimitBook, Settlement, Use, Verdict, seconds_left
from serving.limits.memory_book import MemoryBook
from serving.tenancy.tenant import LimitSettings

log = logging.getLogger("wattgate")

_RESEND_SECONDS = 0.5
_MAX_KEPT = 10_000
"""Settlements kept while Redis is away; beyond that the oldest is dropped and counted."""
_BATCH = 64
_LEASE_SLACK_SECONDS = 5.0
"""A lease outlives its request's deadline by this, so that a live holder never loses it."""
_UNANSWERED = frozenset({Loss.TIMEOUT, Loss.CONNECTION})
"""Losses that leave open whether the command was executed."""
_MOST_NANOGRAMS = 10**15
"""A tonne: no request comes near it, and thousands of them still add up within the 64 bits of Redis' integers."""
_MEMORY = 0.05
"""Weight of the newest request in the mean grams per token."""


@dataclass(slots=True)
class Admission:
    """What one request holds. Settle it exactly once; sending it twice counts once."""

    lease: str
    tenant: str
    limits: LimitSettings
    book: LimitBook
    verdict: Verdict | None
    """None where the tenant has no limits: nothing is held then."""
    headers: dict[str, str]


class TenantLimiter:
    """Lives on the gateway's event loop. ``book`` is None where there is no Redis: then this replica's own counts."""

    def __init__(
        self,
        book: LimitBook | None,
        *,
        strict: bool = False,
        on_fault: Callable[[str], None] = lambda _: None,
        on_refusal: Callable[[str, str], None] = lambda tenant, limit: None,
        on_overdrawn: Callable[[str, str], None] = lambda tenant, limit: None,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        """``strict``: refuse tenants with limits while Redis is away; else each replica counts for itself then.
        ``on_fault`` gets reserve, settle, dropped or usage; ``on_refusal`` the tenant and which limit refused it,
        ``on_overdrawn`` those of a request that was let in although a soft budget is spent."""
        self._local = MemoryBook()
        self._book: LimitBook = book or self._local
        self._strict = strict
        self._on_fault = on_fault
        self._on_refusal = on_refusal
        self._on_overdrawn = on_overdrawn
        self._wall = wall
        self._sleep = sleep
        self._outbox: deque[Settlement] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._grams_per_token: dict[str, float] = {}

    async def admit(
        self,
        tenant: str,
        limits: LimitSettings,
        *,
        tokens: int,
        lifetime_seconds: float,
        first_grams: Callable[[], float] = lambda: 0.0,
    ) -> Admission:
        """Reserve. ``tokens`` is an estimate of prompt and output, ``first_grams`` of their CO2e: taken until the
        tenant has settled a request here, and its own mean from then on.

        Raises:
            RateLimited: a limit is reached; with ``retry-after`` and the ``x-ratelimit-*`` headers.
            EngineUnavailable: Redis is away and the configuration is strict.
        """
        lease = uuid.uuid4().hex
        if not limits.any:
            return Admission(lease, tenant, limits, self._book, None, {})
        # a reservation below zero would give the tenant what it has not
        tokens = max(0, tokens)
        per_token = self._grams_per_token.get(tenant)
        grams = first_grams() if per_token is None else per_token * tokens
        nanograms = min(max(0, round(grams * NANO)), _MOST_NANOGRAMS)
        ask = Ask(lease, tenant, limits, tokens, nanograms, lifetime_seconds + _LEASE_SLACK_SECONDS)
        now, book = self._wall(), self._book
        try:
            verdict = await book.reserve(ask, now)
        except asyncio.CancelledError:
            self._forsake(ask)
            raise
        except StoreUnavailable as unavailable:
            self._on_fault("reserve")
            unanswered = unavailable.loss in _UNANSWERED
            if self._strict:
                if unanswered:
                    self._forsake(ask)
                raise EngineUnavailable(
                    "The quota store is away, and this gateway serves no tenant with limits without it.",
                    code="quota_store_unavailable",
                    headers={"retry-after": "1"},
                ) from None
            book = self._local
            verdict = await book.reserve(ask, now)
            if unanswered and verdict.refused is not None:
                self._forsake(ask)
        headers = limit_headers(limits, verdict)
        if verdict.refused is not None:
            self._on_refusal(tenant, verdict.refused)
            raise refusal(limits, verdict, now, headers)
        for budget in overdrawn(limits, verdict):
            self._on_overdrawn(tenant, budget)
        return Admission(lease, tenant, limits, book, verdict, headers)

    def settle(self, admission: Admission, use: Use) -> None:
        """Book what was used and give back the rest; returns at once, the books follow."""
        self._learn(admission.tenant, use)
        self._book_soon(admission, Settlement(admission.lease, admission.tenant, admission.limits, use))

    def correct(self, admission: Admission, difference: Use, wall_seconds: float) -> None:
        """Add to what was settled at a time, once: the final receipt differs by it."""
        lease = f"{admission.lease}-final"
        settlement = Settlement(lease, admission.tenant, admission.limits, difference, wall_seconds)
        self._book_soon(admission, settlement)

    def _book_soon(self, admission: Admission, settlement: Settlement) -> None:
        if admission.book is not self._book:
            # reserved here while Redis was away: what it holds comes back here, what it used is booked there too
            self._settle_locally(settlement)
        self._send_soon(settlement)

    def _forsake(self, ask: Ask) -> None:
        """The book may hold what nobody has got: give it back, sooner than its lease would."""
        self._send_soon(Settlement(ask.lease, ask.tenant, ask.limits, NOTHING))

    def _send_soon(self, settlement: Settlement) -> None:
        self._outbox.append(settlement)
        if len(self._outbox) > _MAX_KEPT:
            self._outbox.popleft()
            self._on_fault("dropped")
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._send(), name="settle")

    async def settled(self, admission: Admission, use: Use, wait_seconds: float = 0.1) -> None:
        """``settle``, and give the books that long to have it: a client's next request then finds its place free."""
        self.settle(admission, use)
        if admission.verdict is not None and self._sender is not None:
            await asyncio.wait([self._sender], timeout=wait_seconds)

    async def usage(self, tenant: str) -> tuple[Use, Use, str]:
        """Of the present UTC day and month, and whose counts these are: ``gateway`` or ``replica``."""
        now = self._wall()
        scope = "replica" if self._book is self._local else "gateway"
        try:
            day, month = await self._book.usage(tenant, now)
        except StoreUnavailable:
            self._on_fault("usage")
            scope = "replica"
            day, month = await self._local.usage(tenant, now)
        return day, month, scope

    async def close(self) -> None:
        """Give the last settlements two seconds."""
        if self._sender is not None:
            await asyncio.wait([self._sender], timeout=2.0)
            self._sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sender
        await self._book.close()

    @property
    def unsettled(self) -> int:
        return len(self._outbox)

    async def _send(self) -> None:
        while self._outbox:
            batch = [self._outbox[at] for at in range(min(_BATCH, len(self._outbox)))]
            try:
                await self._book.settle(batch, self._wall())
            except StoreUnavailable:
                self._on_fault("settle")
                await self._sleep(_RESEND_SECONDS)
                continue
            sent = {settlement.lease for settlement in batch}
            while self._outbox and self._outbox[0].lease in sent:
                self._outbox.popleft()

    def _settle_locally(self, settlement: Settlement) -> None:
        task = asyncio.get_running_loop().create_task(self._local.settle([settlement], self._wall()))
        task.add_done_callback(lambda done: done.exception())

    def _learn(self, tenant: str, use: Use) -> None:
        if use.tokens and use.nanograms:
            fresh = use.nanograms / NANO / use.tokens
            known = self._grams_per_token.get(tenant, fresh)
            self._grams_per_token[tenant] = known + _MEMORY * (fresh - known)


def limit_headers(limits: LimitSettings, verdict: Verdict) -> dict[str, str]:
    """As OpenAI's API names them, and the carbon budget that runs out first."""
    headers = {}
    for name, limit, left in (
        ("requests", limits.requests_per_minute, verdict.requests_left),
        ("tokens", limits.tokens_per_minute, verdict.tokens_left),
    ):
        if limit is not None and left is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(left)))
            headers[f"x-ratelimit-reset-{name}"] = duration((limit - left) * 60 / limit)
    budgets = ((limits.grams_per_day, verdict.day_nanograms), (limits.grams_per_month, verdict.month_nanograms))
    left_grams = [grams - (spent + verdict.held_nanograms) / NANO for grams, spent in budgets if grams is not None]
    if left_grams:
        headers["x-carbon-budget-remaining-grams"] = f"{min(left_grams):.6g}"
    return headers


def overdrawn(limits: LimitSettings, verdict: Verdict) -> list[str]:
    """The carbon budgets that what is settled and what is reserved go beyond; of a request that was let in only soft
    ones can be.
    """
    budgets = (
        ("carbon_day", limits.grams_per_day, verdict.day_nanograms),
        ("carbon_month", limits.grams_per_month, verdict.month_nanograms),
    )
    held = verdict.held_nanograms
    return [name for name, grams, spent in budgets if grams is not None and spent + held > round(grams * NANO)]


def duration(seconds: float) -> str:
    """OpenAI's form: ``6m0s``, ``1.5s``, ``20ms``."""
    milliseconds = math.ceil(max(0.0, seconds) * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"


_REFUSALS = {
    "requests": ("The limit of {0} requests a minute is reached.", "requests_per_minute", "rate_limit_exceeded"),
    "tokens": ("The limit of {0} tokens a minute is reached.", "tokens_per_minute", "rate_limit_exceeded"),
    "concurrent": (
        "The limit of {0} concurrent requests is reached.",
        "concurrent_requests",
        "concurrent_requests_exceeded",
    ),
    "carbon_day": ("The carbon budget of {0:g} g CO2e a day is spent.", "grams_per_day", "carbon_budget_exceeded"),
    "carbon_month": (
        "The carbon budget of {0:g} g CO2e a month is spent.",
        "grams_per_month",
        "carbon_budget_exceeded",
    ),
}


def refusal(limits: LimitSettings, verdict: Verdict, now: float, headers: dict[str, str]) -> RateLimited:
    assert verdict.refused is not None
    text, limit, code = _REFUSALS[verdict.refused]
    wait = seconds_left(now, verdict.refused) if verdict.refused.startswith("carbon") else verdict.retry_seconds
    retry = {"retry-after": str(max(1, math.ceil(wait)))}
    return RateLimited(text.format(getattr(limits, limit)), code=code, headers=headers | retry)
