"""A request that has ended, as logs and spans tell it: never its key, and its text only for a log that asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from serving.call import Call
from serving.gateway import Gateway
from serving.limits.book import MICRO, NANO, NOTHING, Use
from serving.limits.desk import use_of

_ASKED = ("max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "n", "frequency_penalty")


@dataclass(frozen=True, slots=True)
class Ended:
    """Times are seconds; ``started_wall_seconds`` since the epoch, the rest from there."""

    request_id: str
    """Ours, the receipt's id."""
    path: str
    status: int
    """499: the client went."""
    error: str | None
    """Our code for it."""
    started_wall_seconds: float
    seconds: float
    tenant: str | None = None
    """This and what follows is unknown where the request was turned away before it was understood."""
    model: str | None = None
    """None too for a name that is not served: that is a client's own text."""
    stream: bool = False
    priority: str | None = None
    cache: str | None = None
    queue_seconds: float = 0.0
    overhead_seconds: float = 0.0
    first_token_seconds: float | None = None
    prompt_tokens: int = 0
    """As the answer's usage says, a hit's too."""
    output_tokens: int = 0
    endings: tuple[str, ...] = ()
    """How the answer's choices ended, as the engine says it: stop, length, refusal."""
    told_tokens: int = 0
    """Tokens whose times the cap's controller knows already."""
    use: Use = NOTHING
    work: str | None = None
    """How the engine's work was obtained: measured, modelled or simulated."""
    asked: Mapping[str, int | float] | None = None
    """Sampling parameters, numbers only."""
    page: str | None = None
    """Of a page, which no model answers: its route, as `/v1/files/{file_id}`."""
    method: str | None = None
    """Of a page, where it is one that there are pages for."""
    client_request_id: str | None = None
    """The client's ``x-request-id``; it may come more than once."""
    prompt: str | None = field(default=None, repr=False)
    """Redacted, for the request log alone; None unless `telemetry.log_prompts` is on."""
    parent: str | None = None
    """The client's ``traceparent``."""
    parent_state: str | None = None
    """The client's ``tracestate``: what the tracing systems before us pass on, theirs to read."""

    @property
    def joules(self) -> float:
        return self.use.microjoules / MICRO

    @property
    def cost(self) -> float | None:
        """None without prices."""
        return self.use.nanocost / NANO if self.use.nanocost else None

    @property
    def grams(self) -> float:
        return self.use.nanograms / NANO


class EndedSink(Protocol):
    """Must neither block nor raise."""

    def ended(self, request: Ended) -> None: ...

    def close(self) -> None: ...


def ended_call(call: Call, gateway: Gateway, *, status: int, error: str | None, now: float, wall: float) -> Ended:
    """``now`` on the gateway's monotonic clock, ``wall`` the same moment since the epoch."""
    seconds = now - call.received_seconds
    known = any(served.name == call.model for served in gateway.engine.models())
    first = None if call.first_token_seconds is None else call.first_token_seconds - call.received_seconds
    asked: dict[str, Any] = {
        name: value
        for name in _ASKED
        if isinstance(value := call.payload.get(name), int | float) and not isinstance(value, bool)
    }
    return Ended(
        request_id=call.request_id,
        path=call.path,
        status=status,
        error=error,
        started_wall_seconds=wall - seconds,
        seconds=seconds,
        tenant=call.tenant,
        model=call.model if known else None,
        stream=call.stream,
        priority=call.priority.value,
        cache=call.outcome.value,
        queue_seconds=call.queue_seconds,
        overhead_seconds=call.overhead_seconds,
        first_token_seconds=first,
        prompt_tokens=int((call.usage or {}).get("prompt_tokens") or 0),
        output_tokens=int((call.usage or {}).get("completion_tokens") or 0),
        endings=tuple(call.endings),
        told_tokens=call.told_tokens,
        use=use_of(call, gateway),
        work=gateway.engine.method.value,
        asked=asked,
    )
