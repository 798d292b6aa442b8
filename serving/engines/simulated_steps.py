"""The steps of a simulated engine that a fitted engine model drives: one batch, as the simulator's replica has one.

Each step decodes one token of every sequence whose prompt is through, and computes prompts in chunks in the room left
(:mod:`serving.tuning.packing`). A request waits while the memory for keys and values is full.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from serving.tuning.engine_model import EngineModel
from serving.tuning.packing import MAX_BATCHED_TOKENS, SMALLEST_CHUNK, pack_prompts


class Stepped(Protocol):
    """A request in the batch."""

    def stepped(self, now_seconds: float, batch: int) -> None:
        """A step of ``batch`` sequences gave each of its sequences a token."""


@dataclass(slots=True, eq=False)
class _Member:
    request: Stepped
    prompt_tokens: int
    cached_tokens: int
    tokens: int
    sequences: int
    made: int = 0

    @property
    def needed(self) -> int:
        """Tokens whose keys and values it will have at its end."""
        return self.prompt_tokens + self.tokens * self.sequences

    @property
    def context(self) -> int:
        return self.sequences * (self.prompt_tokens + self.made)


@dataclass(slots=True)
class StepLoop:
    """One task while there is a request, none otherwise. ``sleep`` is the engine's."""

    model: EngineModel
    sleep: Callable[[float], Awaitable[None]]
    clock: Callable[[], float]
    _members: dict[int, _Member] = field(default_factory=dict)
    _keys: dict[int, int] = field(default_factory=dict)
    """Of requests, by their ``id``."""
    _next: int = 0
    _waiting: deque[int] = field(default_factory=deque)
    _prefilling: deque[list[int]] = field(default_factory=deque)
    _decoding: dict[int, _Member] = field(default_factory=dict)
    _computed: dict[int, int] = field(default_factory=dict)
    _cached: dict[int, int] = field(default_factory=dict)
    _reserved: int = 0
    _task: asyncio.Task[None] | None = None

    def join(self, request: Stepped, prompt_tokens: int, cached_tokens: int, tokens: int, sequences: int) -> None:
        """From the next step on, until ``tokens`` have been made of each sequence, or ``leave``."""
        key = self._keys[id(request)] = self._next
        self._next += 1
        self._members[key] = _Member(request, prompt_tokens, cached_tokens, tokens, sequences)
        self._computed[key], self._cached[key] = max(1, prompt_tokens - cached_tokens), cached_tokens
        self._waiting.append(key)
        if self._task is None or self._task.done():
            # a task begins after what is ready: requests that come together are in one step
            self._task = asyncio.create_task(self._run(), name="simulated steps")

    def leave(self, request: Stepped) -> None:
        """The step that is under way still takes its time; more than once does nothing."""
        key = self._keys.pop(id(request), None)
        if key is None:
            return
        member = self._members.pop(key)
        if key in self._waiting:
            self._waiting.remove(key)
        else:
            self._reserved -= member.needed
        self._prefilling = deque(entry for entry in self._prefilling if entry[0] != key)
        self._decoding.pop(key, None)
        del self._computed[key], self._cached[key]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        due = self.clock()
        while self._members:
            self._let_in()
            decoding = list(self._decoding.items())
            batch = sum(member.sequences for _, member in decoding)
            room = max(SMALLEST_CHUNK, MAX_BATCHED_TOKENS - batch)
            tokens, pairs, done = pack_prompts(self._prefilling, room, self._computed, self._cached)
            context = sum(member.context for _, member in decoding)
            # by when it should end, not for how long: what each wake-up is late does not add up
            due += self.model.step_seconds(batch, tokens, context, pairs)
            await self.sleep(max(0.0, due - self.clock()))
            now = self.clock()
            through = [(key, self._members[key]) for key in done if key in self._members]
            batch += sum(member.sequences for _, member in through)
            for key, member in through:
                self._decoding[key] = member
            for key, member in (*decoding, *through):
                if key in self._members:
                    self._stepped(member, now, batch)

    def _let_in(self) -> None:
        memory = self.model.kv_tokens
        while self._waiting:
            member = self._members[self._waiting[0]]
            if memory is not None and self._reserved > 0 and self._reserved + member.needed > memory:
                return
            self._reserved += member.needed
            self._prefilling.append([self._waiting.popleft(), 0])

    def _stepped(self, member: _Member, now: float, batch: int) -> None:
        member.made += 1
        member.request.stepped(now, batch)
        if member.made >= member.tokens:
            self.leave(member.request)
