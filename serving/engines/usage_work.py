"""Work records of an engine that tells only its usage: token counts from it, intervals from timing.

Everything here is ``modelled``. The first frame with content ends the prefill; the frames after it are
decode steps until the usage says how many there really were. The books are then corrected upwards, so that
a finished request's records add up to its usage exactly: prefill = prompt - cached, decode = completion -
sequences (each sequence's first token comes out of the prefill).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from metering.node_settings import GRACE_SECONDS
from metering.work import Method, WorkRecord
from serving.engines.asked import asked_choices, asked_prompts, asked_tokens
from serving.engines.base import EngineRequest, WorkSink
from serving.engines.response_events import RESPONSES, plain_usage

BOOK_SECONDS = 0.5
"""Longest time that work seen stays unreported; half a metering window."""
_TOKENS_PER_BYTE = 0.25
"""Before any usage was seen: about four characters of English a token (OpenAI's tokenizer guide)."""
_LEARN = 0.2
"""Weight of the newest request in the running means."""
_CONTENT = re.compile(
    rb'"(?:content|text|reasoning_content|reasoning|refusal|arguments|delta)":\s*"(?!")|"tool_calls":\s*\[\s*\{'
)
"""A frame with at least one token in it; the role, the finish reason and the usage come in frames without."""
USAGE = re.compile(rb'"usage":\s*\{')


@dataclass(slots=True)
class Habits:
    """What earlier requests showed of the upstream, for those that end before they tell their usage."""

    tokens_per_byte: float = _TOKENS_PER_BYTE
    seconds_per_token: float | None = None

    def learn(self, prompt_tokens: int, prompt_bytes: int, completion_tokens: int, seconds: float) -> None:
        """Take in a finished request; ``seconds`` from sending it to its end."""
        if prompt_tokens > 0 and prompt_bytes > 0:
            self.tokens_per_byte += _LEARN * (prompt_tokens / prompt_bytes - self.tokens_per_byte)
        if completion_tokens > 0 and seconds > 0:
            pace = seconds / completion_tokens
            known = self.seconds_per_token
            self.seconds_per_token = pace if known is None else known + _LEARN * (pace - known)


class UsageWork:
    """The work of one request. Call ``frame`` or ``body`` for what comes, and ``close`` at every exit."""

    def __init__(self, request: EngineRequest, work: WorkSink, habits: Habits, clock: Callable[[], float]) -> None:
        self._request = request
        self._work = work
        self._habits = habits
        self._clock = clock
        self._prompts = asked_prompts(request.path, request.payload)
        self._events = request.path == RESPONSES
        """What has been said is said once more in the events that end each part."""
        self._sequences = self._prompts * asked_choices(request.path, request.payload)
        self._prompt_bytes = _prompt_bytes(request.payload)
        self._sent_seconds = clock()
        self.first_token_seconds: float | None = None
        self._last_seconds = self._sent_seconds
        self._booked_seconds = self._sent_seconds
        self._seen = [0] * self._sequences
        """Frames with content, by sequence."""
        self._booked = [0] * self._sequences
        """Decode steps booked, by sequence."""
        self._usage: dict[str, Any] | None = None
        self._closed = False
        self._answered = False

    def pending_seconds(self, now_seconds: float) -> float | None:
        """Since when it has work that is not reported; None where it is closed."""
        if self._closed:
            return None
        # the prefill is told at the end: a stream that outlasts the meter's patience would hold its windows in vain
        kept = self.first_token_seconds is None or now_seconds - self._sent_seconds < GRACE_SECONDS
        return self._sent_seconds if kept else self._booked_seconds

    def frame(self, frame: bytes) -> None:
        """A frame of the stream."""
        if USAGE.search(frame):
            self._take_usage(_json(frame[len(b"data: ") :]))
        if not _CONTENT.search(frame) or (self._events and b'.delta"' not in frame):
            return
        now = self._last_seconds = self._clock()
        if self.first_token_seconds is None:
            self.first_token_seconds = self._booked_seconds = now
        for index in self._indices(frame):
            self._seen[index] += 1
        if now - self._booked_seconds >= BOOK_SECONDS:
            self._book_decode([max(0, seen - 1) for seen in self._seen])

    def body(self, body: bytes) -> None:
        """The whole answer of a unary request."""
        self._answered = True
        self._last_seconds = self._clock()
        self._take_usage(_json(body))

    def close(self) -> None:
        """Book what is left; an aborted request's is estimated from what was seen of it."""
        if self._closed:
            return
        self._closed = True
        now = max(self._clock(), self._sent_seconds)
        if self._usage is None:
            self._close_without_usage(now)
            return
        completion = _count(self._usage.get("completion_tokens"))
        prompt = _count(self._usage.get("prompt_tokens"))
        cached = min(prompt, _count((self._usage.get("prompt_tokens_details") or {}).get("cached_tokens")))
        if self.first_token_seconds is None:
            # a unary answer comes at once: the prefill is taken for one step of the sequence's many
            steps = max(1.0, completion / self._sequences)
            self._last_seconds = max(self._last_seconds, self._sent_seconds)
            self._booked_seconds = self._sent_seconds + (self._last_seconds - self._sent_seconds) / steps
        self._book_prefill(prompt - cached, cached, self.first_token_seconds or self._booked_seconds)
        self._book_decode(self._shared_out(max(0, completion - self._sequences)))
        self._habits.learn(prompt, self._prompt_bytes, completion, self._last_seconds - self._sent_seconds)

    def _close_without_usage(self, now: float) -> None:
        if self.first_token_seconds is not None:
            self._book_prefill(self._prompt_estimate, 0, self.first_token_seconds)
            self._book_decode([max(0, seen - 1) for seen in self._seen])
        elif now > self._sent_seconds:
            # nothing seen of a unary run or a prefill: at the pace of earlier requests, never above what was asked for
            tokens = 1
            pace = self._habits.seconds_per_token
            if pace and (self._answered or not self._request.stream):
                tokens = max(1, int((now - self._sent_seconds) / pace / self._sequences))
            tokens = min(tokens, asked_tokens(self._request.path, self._request.payload) or tokens)
            self._last_seconds = now
            self._booked_seconds = self._sent_seconds + (now - self._sent_seconds) / tokens
            self._book_prefill(self._prompt_estimate, 0, self._booked_seconds)
            self._book_decode([tokens - 1] * self._sequences)

    @property
    def _prompt_estimate(self) -> int:
        return max(1, round(self._prompt_bytes * self._habits.tokens_per_byte))

    def _take_usage(self, payload: Any) -> None:
        told = payload.get("response", payload) if isinstance(payload, dict) else None
        usage = told.get("usage") if isinstance(told, dict) else None
        if isinstance(usage, dict):
            self._usage = plain_usage(usage)

    def _indices(self, frame: bytes) -> list[int]:
        if self._sequences == 1:
            return [0]
        payload = _json(frame[len(b"data: ") :])
        choices = payload.get("choices") if isinstance(payload, dict) else None
        indices = [choice.get("index") for choice in choices or () if isinstance(choice, dict)]
        return [index for index in indices if isinstance(index, int) and 0 <= index < self._sequences]

    def _shared_out(self, steps: int) -> list[int]:
        """Decode steps by sequence, adding up to ``steps``: as seen, the rest evenly."""
        out = list(self._booked)
        rest = steps - sum(out)
        for index, seen in enumerate(self._seen):
            more = min(max(0, seen - 1 - out[index]), max(0, rest))
            out[index] += more
            rest -= more
        for index in range(self._sequences):
            share = max(0, rest) // (self._sequences - index)
            out[index] += share
            rest -= share
        return out

    def _book_prefill(self, computed: int, cached: int, ended: float) -> None:
        if computed or cached:
            self._record(self._sent_seconds, ended, prefill_tokens=computed, cached_tokens=cached)

    def _book_decode(self, upto: list[int]) -> None:
        prompt = _count((self._usage or {}).get("prompt_tokens")) or self._prompt_estimate
        context = prompt // self._prompts
        for index, steps in enumerate(upto):
            booked = self._booked[index]
            if steps > booked:
                self._record(
                    self._booked_seconds,
                    self._last_seconds,
                    decode_tokens=steps - booked,
                    first_context_tokens=context + booked + 1,
                )
                self._booked[index] = steps
        self._booked_seconds = self._last_seconds

    def _record(self, started: float, ended: float, **tokens: int) -> None:
        request = self._request
        self._work(
            WorkRecord(
                request_id=request.request_id,
                model=request.model,
                tenant=request.tenant,
                started_seconds=started,
                ended_seconds=max(started, ended),
                method=Method.MODELLED,
                **tokens,
            )
        )


def _json(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _prompt_bytes(payload: dict[str, Any]) -> int:
    given = next((payload[name] for name in ("messages", "prompt", "input") if payload.get(name)), "")
    return len(orjson.dumps(given, default=str))
