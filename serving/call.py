"""One request on its way through the gateway, and what is answered to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from cache.control import CacheControl, Outcome
from metering.receipt import Receipt
from serving.meter_link import Trace
from serving.tenancy.tenant import Priority


@dataclass(slots=True)
class Call:
    """One authenticated, parsed request."""

    request_id: str
    tenant: str
    path: str
    payload: dict[str, Any]
    received_seconds: float
    """Monotonic."""
    deadline_seconds: float
    """Monotonic; the answer must be complete by then."""
    cache_control: CacheControl = field(default_factory=CacheControl)
    priority: Priority = Priority.STANDARD
    prompt_tokens: int = 0
    """Estimated, before the engine has counted."""
    # filled on the way
    outcome: Outcome = Outcome.BYPASS
    queue_seconds: float = 0.0
    overhead_seconds: float = 0.0
    """Spent in the gateway itself: neither queue nor engine."""
    engine_asked_seconds: float | None = None
    """Monotonic: when it had its slot and the engine was asked; None where it never was."""
    first_token_seconds: float | None = None
    """Monotonic."""
    told_tokens: int = 0
    """Tokens whose times the cap's controller was told as they came."""
    usage: dict[str, Any] | None = None
    endings: list[str] = field(default_factory=list)
    """How the answer's choices ended, as the engine says it."""
    hit: Receipt | None = None
    """Of an answer from the cache."""
    avoided_flops: int = 0
    trace: Trace | None = None
    """Of the run that this call began."""
    fallback: str | None = None
    """The model that ran in place of the one asked for."""
    leading: bool = False
    """A run that others can share was begun for it and has not ended: it may yet wait for its slot."""
    when_run_ends: list[Callable[[], None]] = field(default_factory=list)
    """Called once, if the call has gone while others keep its run going."""

    def run_ended(self) -> None:
        """The run that was begun for it; more than once does nothing."""
        self.leading = False
        told, self.when_run_ends = self.when_run_ends, []
        for tell in told:
            tell()

    @property
    def begun(self) -> bool:
        """Whether an engine, or the cache, has begun to answer it."""
        return self.trace is not None or self.first_token_seconds is not None

    @property
    def stream(self) -> bool:
        return bool(self.payload.get("stream"))

    @property
    def include_usage(self) -> bool:
        return bool((self.payload.get("stream_options") or {}).get("include_usage"))

    @property
    def model(self) -> str:
        return str(self.payload["model"])


@dataclass(slots=True)
class Reply:
    headers: dict[str, str]
    frames: AsyncIterator[bytes]


def parsed_answer(raw: bytes) -> dict[str, Any] | None:
    """The body of a unary answer; None where it is no JSON object."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None
