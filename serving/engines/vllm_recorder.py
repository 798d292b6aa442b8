"""Turns vLLM's per-step outputs into work records.

The recorder stands between the engine core and vLLM's output processor: it sees every token of every
sequence with the step's own timestamp, also of unary requests (whose generators yield only once) and of
requests that are aborted. Only attribute names of vLLM's structs are used here, so it is tested
without vLLM.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from metering.work import EngineSteps, Method, WorkRecord
from serving.engines.base import StepSink, WorkSink

FLUSH_SECONDS = 0.5
"""Longest time that executed work stays unreported; half a metering window."""
_ABORTED_KEPT = 1024
"""Aborted sequences remembered, because the step that was running may still report for them."""
_PROMPTS_KEPT = 64
_BEGINNING_TOKENS = 4096
"""Of the last prompts computed, to tell what an unseen prefill found in the prefix cache."""


@dataclass(slots=True)
class Recording:
    """One gateway request while it is in the engine; its sequences share it."""

    request_id: str
    model: str
    tenant: str
    work: WorkSink
    first_token_seconds: float | None = None


current_recording: ContextVar[Recording | None] = ContextVar("current_recording", default=None)


@dataclass(slots=True)
class _Sequence:
    recording: Recording
    prompt_tokens: int
    added_seconds: float
    beginning: tuple[int, ...] = ()
    """First tokens of the prompt."""
    alone: bool = False
    """The engine was idle when it came."""
    context_tokens: int = 0
    """Tokens whose keys and values exist; 0 before the prefill has ended."""
    since_seconds: float = 0.0
    until_seconds: float = 0.0
    decode_tokens: int = 0
    first_context_tokens: int = 0
    preemptions: int = 0
    resumed: bool = False


class StepRecorder:
    """Accumulates per sequence, flushes about twice a second and when a sequence ends.

    Not thread safe: lives on the event loop of the engine client.

    Args:
        max_step_tokens: of one step of the engine; what an unseen prefill is booked at most.
        block_tokens: of a block of its prefix cache, which is reused whole; 0: it has none.
    """

    def __init__(
        self,
        steps: StepSink,
        model: str,
        max_step_tokens: int,
        block_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._step_sink = steps
        self._model = model
        self._max_step_tokens = max_step_tokens
        self._block_tokens = block_tokens
        self._beginnings: OrderedDict[tuple[str, tuple[int, ...]], None] = OrderedDict()
        """With the model: an adapter's keys and values are no other's."""
        self._clock = clock
        self._live: dict[str, _Sequence] = {}
        self._aborted: OrderedDict[str, _Sequence] = OrderedDict()
        self._last_step_seconds = 0.0
        self._woken_seconds = 0.0
        self._steps = 0
        self._sequence_steps = 0
        self._prefill_tokens = 0
        self._decode_tokens = 0
        self._context_tokens = 0
        self._steps_since_seconds = 0.0

    @property
    def running(self) -> int:
        return len(self._live)

    def silent_seconds(self) -> float:
        """Since the engine last gave something for what is inside, or got its first; 0 where nothing is inside."""
        return self._clock() - max(self._last_step_seconds, self._woken_seconds) if self._live else 0.0

    def added(self, internal_id: str, prompt: Sequence[int]) -> None:
        """A sequence enters the engine with these tokens, in the context of the request that asked for it."""
        recording = current_recording.get()
        if recording is not None:
            now = self._clock()
            alone = not self._live
            if alone:
                # no interval of steps spans a time without work
                self._flush_steps()
                self._woken_seconds = now
            beginning = tuple(prompt[:_BEGINNING_TOKENS]) if self._block_tokens else ()
            self._live[internal_id] = _Sequence(recording, len(prompt), now, beginning, alone)

    def stepped(self, outputs: Sequence[Any], step_seconds: float | None) -> None:
        """One step's outputs (or a slice of them), before vLLM processes them."""
        now = self._clock() if step_seconds is None else step_seconds
        if now != self._last_step_seconds:
            if self._steps and now - self._steps_since_seconds >= FLUSH_SECONDS:
                self._flush_steps()
            if not self._steps:
                # the idle time before a first request belongs to no step
                self._steps_since_seconds = min(now, max(self._last_step_seconds, self._woken_seconds)) or now
            self._steps += 1
        self._sequence_steps += len(outputs)
        for output in outputs:
            sequence = self._live.get(output.request_id) or self._aborted.get(output.request_id)
            if sequence is None:
                continue
            self._step_of(sequence, output, now)
            if output.finish_reason is not None:
                self._end(output.request_id)
        self._last_step_seconds = now

    def left(self, recording: Recording) -> None:
        """The request has gone from the serving layer. Sequences of it that the engine refused before it took
        them in have shown neither an output nor an abort: they did no work and are forgotten.
        """
        for internal_id in [key for key, sequence in self._live.items() if sequence.recording is recording]:
            self._flush(self._live.pop(internal_id))

    def aborted(self, internal_ids: Sequence[str]) -> None:
        """Sequences that nobody waits for any more (client gone, deadline, stop string)."""
        for internal_id in internal_ids:
            sequence = self._live.pop(internal_id, None)
            if sequence is None:
                continue
            if sequence.context_tokens == 0 and self._begun(sequence):
                self._book_unseen_prefill(sequence)
            self._flush(sequence)
            self._aborted[internal_id] = sequence
            while len(self._aborted) > _ABORTED_KEPT:
                self._aborted.popitem(last=False)

    def flush(self) -> float | None:
        """Report everything executed so far; when the oldest work began that is under way: a prefill that has not
        shown its first token, or the step that the sequences being decoded are in.
        """
        pending: float | None = None
        for sequence in self._live.values():
            self._flush(sequence)
            since = sequence.added_seconds if sequence.context_tokens == 0 else self._last_step_seconds
            if pending is None or since < pending:
                pending = since
        self._flush_steps()
        return pending

    def _begun(self, sequence: _Sequence) -> bool:
        # an idle engine starts a new request's prefill at once; a busy one when the step under way has ended
        since = self._clock() if sequence.alone else self._last_step_seconds
        return since > sequence.added_seconds

    def _book_unseen_prefill(self, sequence: _Sequence) -> None:
        # The engine reports a prefill only with its first token. One cut short before that has run at
        # least a step of it; that much is booked, and marked as modelled.
        now = self._clock()
        recording = sequence.recording
        reused = self._reused(sequence)
        recording.work(
            WorkRecord(
                request_id=recording.request_id,
                model=recording.model,
                tenant=recording.tenant,
                started_seconds=sequence.added_seconds,
                ended_seconds=now,
                prefill_tokens=min(sequence.prompt_tokens - reused, self._max_step_tokens),
                cached_tokens=reused,
                method=Method.MODELLED,
            )
        )

    def _reused(self, sequence: _Sequence) -> int:
        """Tokens that the prefix cache has had for a prompt, going by those computed before it: whole blocks of the
        longest common beginning, and never the last token. What was evicted since, or has another salt, is not known.
        """
        if not self._block_tokens:
            return 0
        most = max(0, sequence.prompt_tokens - 1) // self._block_tokens * self._block_tokens
        found = 0
        for model, other in self._beginnings:
            if model == sequence.recording.model:
                found = _grown(sequence.beginning, other, found, most, self._block_tokens)
        return found

    def _step_of(self, sequence: _Sequence, output: Any, now: float) -> None:
        new_tokens = len(output.new_token_ids)
        recording = sequence.recording
        scheduled_seconds: float | None = None
        for event in output.events or ():
            name = event.type.name
            if name == "SCHEDULED":
                scheduled_seconds = event.timestamp
            elif name == "PREEMPTED":
                sequence.preemptions += 1
                sequence.resumed = True
        if sequence.context_tokens == 0:
            self._prefilled(sequence, output, scheduled_seconds, now)
            new_tokens -= 1
        elif sequence.resumed:
            # what was evicted is computed again, prompt and answer so far
            self._flush(sequence)
            self._record(
                sequence, scheduled_seconds or self._last_step_seconds, now, prefill_tokens=sequence.context_tokens
            )
            self._prefill_tokens += sequence.context_tokens
            sequence.resumed = False
            new_tokens -= 1
            sequence.context_tokens += 1
        if new_tokens > 0:
            if sequence.decode_tokens == 0:
                sequence.first_context_tokens = sequence.context_tokens + 1
                sequence.since_seconds = max(self._last_step_seconds, sequence.until_seconds, sequence.added_seconds)
            sequence.decode_tokens += new_tokens
            sequence.context_tokens += new_tokens
            self._decode_tokens += new_tokens
            self._context_tokens += sequence.context_tokens
        sequence.until_seconds = now
        if recording.first_token_seconds is None and output.new_token_ids:
            recording.first_token_seconds = now
        if sequence.decode_tokens and now - sequence.since_seconds >= FLUSH_SECONDS:
            self._flush(sequence)

    def _prefilled(self, sequence: _Sequence, output: Any, scheduled_seconds: float | None, now: float) -> None:
        stats = output.prefill_stats
        cached = stats.num_cached_tokens if stats is not None else 0
        self._prefill_tokens += sequence.prompt_tokens - cached
        self._record(
            sequence,
            min(now, max(sequence.added_seconds, scheduled_seconds or 0.0)),
            now,
            prefill_tokens=sequence.prompt_tokens - cached,
            cached_tokens=cached,
        )
        sequence.context_tokens = sequence.prompt_tokens
        if sequence.beginning:
            self._beginnings[sequence.recording.model, sequence.beginning] = None
            if len(self._beginnings) > _PROMPTS_KEPT:
                self._beginnings.popitem(last=False)

    def _record(self, sequence: _Sequence, started: float, ended: float, **work: int) -> None:
        recording = sequence.recording
        recording.work(
            WorkRecord(
                request_id=recording.request_id,
                model=recording.model,
                tenant=recording.tenant,
                started_seconds=started,
                ended_seconds=max(started, ended),
                preemptions=sequence.preemptions,
                method=Method.MEASURED,
                **work,
            )
        )
        sequence.preemptions = 0

    def _flush(self, sequence: _Sequence) -> None:
        if sequence.decode_tokens:
            self._record(
                sequence,
                sequence.since_seconds,
                sequence.until_seconds,
                decode_tokens=sequence.decode_tokens,
                first_context_tokens=sequence.first_context_tokens,
            )
            sequence.decode_tokens = 0

    def _flush_steps(self) -> None:
        if self._steps:
            self._step_sink(
                EngineSteps(
                    model=self._model,
                    started_seconds=self._steps_since_seconds,
                    ended_seconds=self._last_step_seconds,
                    steps=self._steps,
                    sequence_steps=self._sequence_steps,
                    prefill_tokens=self._prefill_tokens,
                    decode_tokens=self._decode_tokens,
                    context_tokens=self._context_tokens,
                )
            )
        self._steps = self._sequence_steps = 0
        self._prefill_tokens = self._decode_tokens = self._context_tokens = 0

    def _end(self, internal_id: str) -> None:
        sequence = self._live.pop(internal_id, None) or self._aborted.pop(internal_id, None)
        if sequence is not None:
            self._flush(sequence)


def _grown(one: Sequence[int], other: Sequence[int], found: int, most: int, block: int) -> int:
    """How far two prompts are equal in whole blocks, ``found`` at least; by slices, for it holds the event loop up."""
    if one[:found] != other[:found]:
        return found
    while found < most and one[found : found + block] == other[found : found + block]:
        if len(other) < found + block or len(one) < found + block:
            break
        found += block
    return found
