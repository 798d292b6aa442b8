"""Replicas that ask and settle at once, die and come late: what every book of limits keeps to, in any order."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.limits.book import NANO, NOTHING, Ask, LimitBook, Settlement, Use
from serving.tenancy.tenant import LimitSettings
from tests.unit.limits.laws import NOON

CONCURRENT, TOKENS = 3, 600
LIMITS = LimitSettings(concurrent_requests=CONCURRENT, tokens_per_minute=TOKENS, grams_per_day=1.0)
uses = st.builds(
    Use,
    output_tokens=st.integers(0, 200),
    microjoules=st.integers(0, 10**7),
    operational_nanograms=st.integers(0, NANO // 4),
)


class Replicas(RuleBasedStateMachine):
    """Two replicas over one account; its time is moved by hand."""

    def books(self) -> list[LimitBook]:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.replicas = self.books()
        self.tenant = uuid.uuid4().hex
        self.now = NOON
        self.live: dict[str, tuple[float, int]] = {}
        """Leases to their end and the nanograms they hold."""
        self.ended: list[tuple[str, Use, float]] = []
        """Settled: lease, use, when."""
        self.used = NOTHING

    def go(self, *calls: Any) -> list[Any]:
        async def all_at_once() -> list[Any]:
            return list(await asyncio.gather(*calls))

        return self.runner.run(all_at_once())

    def _held(self) -> dict[str, tuple[float, int]]:
        return {lease: held for lease, held in self.live.items() if held[0] > self.now}

    @rule(
        number=st.integers(1, 5),
        tokens=st.integers(0, 100),
        nanograms=st.integers(0, NANO // 2),
        lifetime=st.sampled_from([5.0, 60.0]),
    )
    def ask_at_once(self, number: int, tokens: int, nanograms: int, lifetime: float) -> None:
        """All alike: who wins is open, how many is not."""
        self.live = self._held()
        before = len(self.live)
        asks = [
            (at % 2, Ask(uuid.uuid4().hex, self.tenant, LIMITS, tokens, nanograms, lifetime)) for at in range(number)
        ]
        verdicts = self.go(*(self.replicas[replica].reserve(ask, self.now) for replica, ask in asks))
        for (_, ask), verdict in zip(asks, verdicts, strict=True):
            if verdict.refused is None:
                self.live[ask.lease] = (self.now + lifetime, ask.nanograms)
        refused = {verdict.refused for verdict in verdicts} - {None}
        accepted = len(self.live) - before
        assert len(self.live) <= CONCURRENT
        held = sum(nanograms for _, nanograms in self.live.values())
        if accepted:
            assert self.used.nanograms + held <= NANO, "the budget is never promised twice"
        if "concurrent" in refused:
            assert len(self.live) == CONCURRENT, "refused although there was room"
        if "carbon_day" in refused:
            assert self.used.nanograms + held + nanograms > NANO
        assert refused <= {"concurrent", "carbon_day", "tokens"}

    @precondition(lambda self: self.live)
    @rule(pick=st.integers(0, 9), use=uses, replica=st.integers(0, 1), times=st.integers(1, 3))
    def settle(self, pick: int, use: Use, replica: int, times: int) -> None:
        """Also one whose lease has ended meanwhile, and one that both replicas send at once."""
        lease = list(self.live)[pick % len(self.live)]
        done = Settlement(lease, self.tenant, LIMITS, use)
        self.go(*(self.replicas[(replica + n) % 2].settle([done], self.now) for n in range(times)))
        del self.live[lease]
        self.ended.append((lease, use, self.now))
        self.used += use

    @precondition(lambda self: self.ended)
    @rule(pick=st.integers(0, 9), nanograms=st.integers(-(10**8), 10**8), times=st.integers(1, 2))
    def correct(self, pick: int, nanograms: int, times: int) -> None:
        lease, use, at = self.ended.pop(pick % len(self.ended))
        more = Use(requests=0, operational_nanograms=max(-use.operational_nanograms, nanograms), microjoules=3)
        done = Settlement(f"{lease}-final", self.tenant, LIMITS, more, at)
        self.go(*(self.replicas[n].settle([done], self.now) for n in range(times)))
        self.used += more

    @rule(seconds=st.sampled_from([0.5, 6.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        """Those whose holders say no more come back by themselves."""
        self.now += seconds

    @invariant()
    def the_account_is_the_sum_of_what_was_settled(self) -> None:
        for replica in self.replicas:
            (usage,) = self.go(replica.usage(self.tenant, self.now))
            assert usage == (self.used, self.used)

    def teardown(self) -> None:
        self.now += 3600
        ask = Ask(uuid.uuid4().hex, self.tenant, LIMITS, 10, 0, 1.0)
        (verdict,) = self.go(self.replicas[1].reserve(ask, self.now))
        assert verdict.held_nanograms == 0, "nothing that was held is lost"
        if self.used.nanograms <= NANO:
            assert (verdict.refused, verdict.concurrent, verdict.tokens_left) == (None, 1, TOKENS - 10)
        else:
            assert (verdict.refused, verdict.concurrent) == ("carbon_day", 0)
        self.go(*(replica.close() for replica in self.replicas))
        self.runner.close()
