"""What an engine really executed: the one input of every FLOP, joule and gram that the books attribute."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Method(StrEnum):
    """How a figure was obtained; a sum takes the weakest method among its parts."""

    MEASURED = "measured"
    MODELLED = "modelled"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class WorkRecord:
    """Work executed for one sequence of one request during one interval of the node's monotonic clock.

    A request has one record for its prefill and any number for its decode steps (an engine flushes at
    least once a window); a request with ``n`` > 1 has records for each of its sequences. The contexts
    of consecutive decode steps grow by one, so a record needs only the first.
    """

    request_id: str
    model: str
    """Served model name; the meter looks the architecture up by it."""
    tenant: str
    started_seconds: float
    """``time.monotonic()`` of the node: the same clock in every process of one machine."""
    ended_seconds: float
    prefill_tokens: int = 0
    """Prompt tokens that were computed, prefix-cache hits excluded."""
    cached_tokens: int = 0
    """Prompt tokens whose keys and values were reused: context for the prefill, no linear FLOPs."""
    decode_tokens: int = 0
    """Decode steps executed. A sequence of M output tokens has M - 1: its first comes from the prefill."""
    first_context_tokens: int = 0
    """Context of the first decode step, itself included; each following step attends to one more."""
    preemptions: int = 0
    method: Method = Method.MEASURED


@dataclass(frozen=True, slots=True)
class EngineSteps:
    """Totals of an engine's scheduler steps during one interval: how far sequences shared each step."""

    model: str
    started_seconds: float
    ended_seconds: float
    steps: int
    """Forward passes."""
    sequence_steps: int
    """Sequences summed over the forward passes; divided by ``steps`` it is the mean batch."""
    prefill_tokens: int = 0
    """Prompt tokens computed in them. This and what follows: 0 from an engine that does not tell."""
    decode_tokens: int = 0
    """Tokens decoded in them."""
    context_tokens: int = 0
    """Context that those attended to, summed over them."""


@dataclass(frozen=True, slots=True)
class Served:
    """Answers that one model gave one tenant, as the gateway counted them; no part of the ledger.

    What hits cost and avoided is modelled (see ``settlement.hit_receipt``).
    """

    model: str
    tenant: str
    requests: int = 0
    """Ended, however; hits and failures included."""
    failed: int = 0
    """Ended with anything but success: refused, broken off, out of time, or left by the client."""
    hits: int = 0
    """Answered from the response cache."""
    prompt_tokens: int = 0
    """Of answers that the engine computed, reused ones included."""
    cached_prompt_tokens: int = 0
    output_tokens: int = 0
    avoided_tokens: int = 0
    """Prompt and output tokens of hits."""
    avoided_flops: int = 0
    avoided_joules: float = 0.0
    avoided_grams: float = 0.0
    hit_joules: float = 0.0
    hit_grams: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkBatch:
    """What a replica reports at once. Sent again until acknowledged, booked once by (source, sequence)."""

    source: str
    """Replica, unique over its life (a restarted replica is a new source)."""
    sequence: int
    """1, 2, 3, ... within the source."""
    watermark_seconds: float
    """No later batch of this source carries work that ended before this."""
    records: tuple[WorkRecord, ...] = ()
    steps: tuple[EngineSteps, ...] = ()
    finished: tuple[str, ...] = field(default=())
    """Ids of requests that will send no further records."""
    verdicts: tuple[tuple[str, str], ...] = ()
    """Cache verdict of finished requests where it is not ``MISS``, as ``BYPASS``."""
    served: tuple[Served, ...] = ()
    last: bool = False
    """The source ends in order with this batch: nothing of it is waited for once all before it is in."""
