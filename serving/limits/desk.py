"""One request's account with its tenant's limits: reserved before anything is spent, settled on every exit."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from serving.call import Call, Reply
from serving.engines.asked import asked_sequences, asked_tokens
from serving.engines.response_events import is_last
from serving.errors import GatewayError
from serving.gateway import Gateway
from serving.limits.book import MICRO, NANO, Use
from serving.limits.finals import FinalFigures, energy_use
from serving.limits.limiter import Admission, TenantLimiter
from serving.tenancy.tenant import TenantSettings

_DONE = b"data: [DONE]\n\n"


class Desk:
    """In front of the gateway: the same ``open``, with limits."""

    def __init__(
        self,
        gateway: Gateway,
        limiter: TenantLimiter,
        grants: Callable[[str], TenantSettings],
        *,
        assumed_output_tokens: int = 256,
        finals: FinalFigures | None = None,
    ) -> None:
        """``assumed_output_tokens``: reserved for a request that does not say how long its answer may be.
        ``finals`` corrects what was settled; None leaves it at the provisional receipt."""
        self._gateway = gateway
        self.limiter = limiter
        self._grants = grants
        self._assumed_output_tokens = assumed_output_tokens
        self.finals = finals

    @contextlib.asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Reply]:
        """Raises GatewayError, with the limits' headers on it."""
        limits = self._grants(call.tenant).limits
        asked = asked_tokens(call.path, call.payload) or self._assumed_output_tokens
        output = asked * asked_sequences(call.path, call.payload)
        try:
            admission = await self.limiter.admit(
                call.tenant,
                limits,
                tokens=call.prompt_tokens + output,
                lifetime_seconds=call.deadline_seconds - call.received_seconds,
                first_grams=lambda: self._gateway.meter.expected_grams(
                    call.request_id, call.tenant, call.model, call.prompt_tokens, output
                ),
            )
        except GatewayError as error:
            self._gateway.turned_away(call, error.status)
            raise
        tab = _Tab(self._gateway, self.limiter, admission, call, self.finals)
        try:
            async with self._gateway.open(call) as reply:
                reply.headers.update(admission.headers)
                if call.stream:
                    yield Reply(reply.headers, tab.settled_before_the_end(reply.frames))
                else:
                    await tab.settle_now()
                    yield reply
        except GatewayError as error:
            error.headers = admission.headers | error.headers
            raise
        finally:
            tab.close()


class _Tab:
    def __init__(
        self,
        gateway: Gateway,
        limiter: TenantLimiter,
        admission: Admission,
        call: Call,
        finals: FinalFigures | None,
    ) -> None:
        self._finals = finals
        self._gateway = gateway
        self._limiter = limiter
        self._admission = admission
        self._call = call
        self._settled = False

    def _use(self) -> Use:
        call = self._call
        use = use_of(call, self._gateway)
        if self._finals is not None and call.hit is None and call.trace is not None and call.trace.records:
            self._finals.expect(self._admission, call.trace.request_id, use)
        return use

    async def settle_now(self) -> None:
        """While the client still waits for the last byte: its next request must find its place free."""
        self._settled = True
        await self._limiter.settled(self._admission, self._use())

    async def settled_before_the_end(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for frame in frames:
            if frame == _DONE or is_last(frame):
                await self.settle_now()
            yield frame

    def close(self) -> None:
        if self._settled:
            return
        self._settled = True
        if self._call.leading:
            # others share the run and keep it going after this client, or wait for it: it is charged when it ends
            self._call.when_run_ends.append(self._late)
        else:
            self._late()

    def _late(self) -> None:
        self._limiter.settle(self._admission, self._use())


def use_of(call: Call, gateway: Gateway) -> Use:
    """What a request used, complete or broken off; nothing but itself where it never reached an engine."""
    usage = call.usage or {}
    if call.hit is not None:
        return energy_use(call.hit) + Use(
            cache_hits=1,
            avoided_tokens=int(usage.get("prompt_tokens") or 0) + int(usage.get("completion_tokens") or 0),
            avoided_microjoules=round(call.hit.avoided_joules * MICRO),
            avoided_nanograms=round(call.hit.avoided_grams * NANO),
        )
    if call.trace is None:
        return Use(failed=1)
    records = call.trace.records
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if prompt is None:
        prompt = sum(record.prefill_tokens + record.cached_tokens for record in records)
    if output is None:
        # each sequence's first token comes from its prefill
        output = call.trace.decoded_tokens + sum(record.prefill_tokens > 0 for record in records)
    return energy_use(gateway.meter.provisional(call.trace, call.outcome.value)) + Use(
        failed=int(call.usage is None),
        prompt_tokens=int(prompt),
        cached_prompt_tokens=int(sum(record.cached_tokens for record in records) if cached is None else cached),
        output_tokens=int(output),
    )
