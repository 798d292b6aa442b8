"""One priority class: its waiting requests, and its tenants' even shares of the slots."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from serving.errors import GatewayError
from serving.tenancy.tenant import Priority


@dataclass(slots=True, eq=False)
class Waiter:
    """A request before and while it holds a slot."""

    tenant: str
    priority: Priority
    prefill_tokens: int
    asked_seconds: float
    deadline_seconds: float | None
    slot: asyncio.Future[None] | None = None
    running: bool = False
    charged_seconds: float = 0.0

    def refuse(self, error: GatewayError) -> None:
        if self.slot is not None and not self.slot.done():
            self.slot.set_exception(error)


@dataclass(slots=True)
class _Share:
    """A tenant's account within the class: slot-seconds taken, ahead of or behind the others."""

    taken_seconds: float
    waiting: deque[Waiter]
    running: int = 0


class Line:
    """Start-time fair queueing over slot-seconds (Goyal, Vin, Cheng, SIGCOMM 1996): the tenant that has taken least
    goes next. A slot is charged at the mean hold time when given and corrected when given back; a tenant that comes
    (back) starts where the others are, so that having been away earns nothing.
    """

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}
        self._level_seconds = 0.0
        self.running = 0
        self.waiting = 0
        self.prefill_tokens = 0

    def join(self, waiter: Waiter) -> None:
        self._share(waiter.tenant).waiting.append(waiter)
        self.waiting += 1
        self.prefill_tokens += waiter.prefill_tokens

    def leave(self, waiter: Waiter) -> None:
        """Out of the waiting ones; nothing where it is not among them."""
        share = self._shares.get(waiter.tenant)
        if share is None:
            return
        try:
            share.waiting.remove(waiter)
        except ValueError:
            return
        self.waiting -= 1
        self.prefill_tokens -= waiter.prefill_tokens
        self._forget(waiter.tenant)

    def started(self, waiter: Waiter, expected_seconds: float) -> None:
        share = self._share(waiter.tenant)
        self._level_seconds = max(self._level_seconds, share.taken_seconds)
        share.taken_seconds += expected_seconds
        share.running += 1
        self.running += 1
        waiter.running, waiter.charged_seconds = True, expected_seconds

    def released(self, waiter: Waiter, held_seconds: float) -> None:
        share = self._shares[waiter.tenant]
        share.taken_seconds += held_seconds - waiter.charged_seconds
        share.running -= 1
        self.running -= 1
        waiter.running = False
        self._forget(waiter.tenant)

    def next(self) -> Waiter:
        """The first of the tenant that has taken least; of equals the one that has waited longest."""
        heads = [share for share in self._shares.values() if share.waiting]
        return min(heads, key=lambda share: (share.taken_seconds, share.waiting[0].asked_seconds)).waiting[0]

    def oldest(self) -> Waiter:
        return min(
            (share.waiting[0] for share in self._shares.values() if share.waiting), key=lambda head: head.asked_seconds
        )

    def youngest_first(self) -> Iterator[Waiter]:
        every = [waiter for share in self._shares.values() for waiter in share.waiting]
        return iter(sorted(every, key=lambda waiter: waiter.asked_seconds, reverse=True))

    def turns_before(self, tenant: str) -> int:
        """Requests that are served before a new one of this tenant, where all take turns."""
        share = self._shares.get(tenant)
        own = 0 if share is None else len(share.waiting)
        beside = (len(other.waiting) for name, other in self._shares.items() if name != tenant)
        return own + sum(min(count, own + 1) for count in beside)

    def _share(self, tenant: str) -> _Share:
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = _Share(self._level_seconds, deque())
        elif not share.waiting and not share.running:
            share.taken_seconds = max(share.taken_seconds, self._level_seconds)
        return share

    def _forget(self, tenant: str) -> None:
        share = self._shares[tenant]
        if not share.waiting and not share.running and share.taken_seconds <= self._level_seconds:
            del self._shares[tenant]
        if self.running == 0 and self.waiting == 0:
            self._shares.clear()
            self._level_seconds = 0.0
