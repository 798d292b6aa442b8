"""The engine seam: an OpenAI request in; OpenAI bytes and work records out; closing aborts.

Implementations: ``vllm`` (in process), ``upstream`` (any OpenAI-compatible server), ``simulated``.
One contract suite (``tests/*/engines/contract.py``) runs against all three.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from metering.receipt import Receipt
from metering.work import EngineSteps, Method, WorkRecord
from serving.tenancy.tenant import Priority

WorkSink = Callable[[WorkRecord], None]
StepSink = Callable[[EngineSteps], None]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One validated request. ``payload`` is the OpenAI body, ``model`` already resolved to a served name.

    For streams the gateway has set ``stream_options.include_usage``; an engine that cannot give usage
    in the stream ends it without.
    """

    request_id: str
    path: str
    """OpenAI path, as ``/v1/chat/completions``."""
    payload: dict[str, Any]
    model: str
    tenant: str
    priority: Priority = Priority.STANDARD
    """This and the two below are for whoever has to queue the request once more."""
    deadline_seconds: float | None = None
    """Monotonic; None: it may wait for ever."""
    prompt_tokens: int = 0
    """Estimated."""

    @property
    def stream(self) -> bool:
        return bool(self.payload.get("stream"))


@dataclass(slots=True)
class BookedElsewhere:
    """Of a run whose work another process books: what it tells of it, filled while it runs."""

    records: list[WorkRecord] = field(default_factory=list)
    """What was seen of the work from here: for the tenant's account of a run that was broken off, not for the books."""
    receipt: Receipt | None = None
    """The provisional one, from where the work was done; an estimate where the run was broken off."""


@dataclass(slots=True)
class EngineAnswer:
    """``status`` 200: ``frames`` yields SSE frames (each ``data: ...\\n\\n``, the last ``data: [DONE]\\n\\n``)
    for a stream, or exactly one JSON body. Refusals are raised as ``GatewayError`` before an answer exists.
    """

    frames: AsyncIterator[bytes]
    first_token_seconds: Callable[[], float | None] = field(default=lambda: None)
    """Monotonic time of the first token as the engine saw it; None where only the frames tell."""
    elsewhere: BookedElsewhere | None = None
    """None: the work is handed to the caller's sink, who books it."""
    fallback: str | None = None
    """Name of the model that answered in place of the one asked for, whose engine is away."""


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A model that the engine serves."""

    name: str
    max_context_tokens: int | None = None
    revision: str | None = None
    config: dict[str, Any] | None = None
    """Hugging Face config, as a dict, for the FLOP count; None where unknown (an upstream may not tell)."""
    weight_bytes_each: float | None = None
    """Bytes of one weight at the precision in use, quantisation included."""
    dtype: str | None = None
    parent: str | None = None
    """Of a LoRA adapter: the model that it is over."""
    adapter: dict[str, Any] | None = None
    """Of a LoRA adapter: its configuration in PEFT's form, for the FLOPs that it adds."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    ready: bool
    reason: str = ""
    """Why not, for an operator."""
    fatal: bool = False
    """True: will not recover by itself; the replica must be replaced."""
    running: int = 0
    """Requests inside the engine now."""
    state: Literal["awake", "asleep", "waking"] = "awake"
    """asleep: unloaded, the next request loads it again; waking: requests wait for that."""


class Engine(Protocol):
    """Every engine. All methods run on the gateway's event loop and never block it."""

    kind: str
    method: Method
    """How its work records are obtained."""

    async def start(self) -> None:
        """Load; returns when the engine can answer. Raises ``EngineStartError`` naming the cause and the mend."""

    def models(self) -> tuple[EngineModel, ...]: ...

    def status(self) -> EngineStatus: ...

    def flush(self) -> float | None:
        """Hand over all work executed so far; the earliest start of work that is still not reported (a prefill
        that has not shown its first token), monotonic seconds, or None.
        """

    def run(self, request: EngineRequest, work: WorkSink) -> AbstractAsyncContextManager[EngineAnswer]:
        """Run one request. Leaving the context aborts what still runs, at once; every token executed has
        been handed to ``work`` by then, aborted or not.

        Raises:
            EngineRefused: the engine judged the request invalid (its status and message).
            EngineUnavailable: not ready, dead, or lost before the first byte.
        """

    async def close(self) -> None: ...


class EngineStartError(Exception):
    """Start-up ended: the message names the thing and the mend, in one line."""
