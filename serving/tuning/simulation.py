"""A discrete-event simulation of replicas with continuous batching: prefill in chunks, decode in between.

Time jumps from event to event: while nothing arrives and nobody ends, any number of decode steps is one jump whose
length is a closed form. Requests go to the replicas in turn, so each replica is simulated by itself, and memory is
that of the workload's columns. A repeat or a shared prefix is cached only on a replica that has seen it.

Not simulated: preemption (a sequence reserves its whole length before it starts), failures, and a response cache
whose entries expire.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from metering.errors import BadInput
from serving.tuning.engine_model import EngineModel
from serving.tuning.packing import MAX_BATCHED_TOKENS, SMALLEST_CHUNK, pack_prompts
from serving.tuning.replica_cache import ReplicaCache
from serving.tuning.workload import Flags, Floats, Integers, Workload

_BINS_PER_E = 50
"""Histogram of the token gaps: bins of 2 %."""
_BIN_OFFSET = 1000
_BINS = 2000


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings of each replica."""

    cap: int = 32
    """Requests inside the engine at once."""
    max_batched_tokens: int = MAX_BATCHED_TOKENS
    max_queue: int | None = None
    """Waiting requests above which one is refused; None: no limit."""
    prefix_caching: bool = True
    response_cache: bool = False
    hit_seconds: float = 0.002
    """Time of an answer from the response cache."""

    def __post_init__(self) -> None:
        if self.cap < 1 or self.max_batched_tokens < SMALLEST_CHUNK or (self.max_queue or 0) < 0:
            raise BadInput(f"a cap of at least 1 and steps of at least {SMALLEST_CHUNK} tokens are needed: {self}")


@dataclass(frozen=True)
class Simulated:
    """What came of each request; times in seconds from its arrival, NaN where it was refused."""

    ttft_seconds: Floats
    e2e_seconds: Floats
    per_token_seconds: Floats
    """Mean time of a token after the first; NaN for answers of one, and for hits."""
    refused: int
    hits: int
    computed_prompt_tokens: Integers
    seconds: float
    """From 0 to the last answer."""
    busy_seconds: float
    """Summed over replicas."""
    steps: int
    sequence_steps: int
    gap_counts: Integers
    replicas: int

    def gap_percentile(self, percentile: float) -> float | None:
        """Of the token gaps of all answers, to 2 %; None without any."""
        total = int(self.gap_counts.sum())
        if total == 0:
            return None
        index = int(np.searchsorted(np.cumsum(self.gap_counts), percentile / 100 * total))
        return math.exp((index - _BIN_OFFSET + 0.5) / _BINS_PER_E)


def simulate(
    workload: Workload, model: EngineModel, limits: Limits, *, replicas: int = 1, clients: int | None = None
) -> Simulated:
    """``clients``: a closed loop of so many, shared evenly by the replicas; each sends its next request when its last
    has ended, and the workload's arrival times say nothing.

    Raises:
        BadInput: no replica, fewer clients than replicas, or a request longer than the memory for keys and values.
    """
    if replicas < 1:
        raise BadInput(f"a fleet needs at least one replica, got {replicas}")
    if clients is not None and (clients < replicas or limits.response_cache):
        raise BadInput("a closed loop is simulated with at least one client for each replica, and no response cache")
    lengths = workload.prompt_tokens + workload.output_tokens
    if model.kv_tokens is not None and int(lengths.max()) > model.kv_tokens:
        raise BadInput(
            f"a request of {int(lengths.max())} tokens exceeds the {model.kv_tokens} that fit {model.devices} x "
            f"{model.device}: give each replica more devices"
        )
    count = len(workload)
    computed = workload.prompt_tokens.copy()
    caching = limits.prefix_caching and ReplicaCache.needed(workload)
    first, end = np.full(count, np.nan), np.full(count, np.nan)
    hit = (workload.repeat_of >= 0) if limits.response_cache else np.zeros(count, dtype=bool)
    engine_requests = np.flatnonzero(~hit)
    counts = np.zeros(_BINS, dtype=np.int64)
    arrival = workload.arrival_seconds if clients is None else np.zeros(count)
    refused = steps = sequence_steps = 0
    busy = 0.0
    for number in range(min(replicas, max(1, len(engine_requests)))):
        mine = engine_requests[number::replicas]
        cache = ReplicaCache(workload, mine, model.kv_tokens) if caching else None
        replica = _Replica(model, limits, counts, cache)
        share = None if clients is None else clients // replicas + (number < clients % replicas)
        replica.run(workload, computed, mine, arrival, first, end, share)
        refused += replica.refused
        steps += replica.steps
        sequence_steps += replica.sequence_steps
        busy += replica.busy_seconds
    _answer_hits(workload, hit, limits.hit_seconds, first, end)
    decoded = workload.output_tokens - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        per_token = np.where((decoded > 0) & ~hit, (end - first) / decoded, np.nan)
    return Simulated(
        ttft_seconds=first - arrival + model.overhead_seconds,
        e2e_seconds=end - arrival + model.overhead_seconds,
        per_token_seconds=per_token,
        refused=refused,
        hits=int(np.sum(hit & ~np.isnan(end))),
        computed_prompt_tokens=np.where(hit, 0, computed),
        seconds=float(np.nanmax(np.append(end, arrival[-1]))),
        busy_seconds=busy,
        steps=steps,
        sequence_steps=sequence_steps,
        gap_counts=counts,
        replicas=replicas,
    )


def _answer_hits(workload: Workload, hit: Flags, hit_seconds: float, first: Floats, end: Floats) -> None:
    """A repeat is answered at once, or with the original where that still runs (single flight)."""
    index = np.flatnonzero(hit)
    original = workload.repeat_of[index]
    asked = workload.arrival_seconds[index]
    first[index] = np.maximum(asked, end[original]) + hit_seconds
    end[index] = first[index]


class _Replica:
    """One engine. Local names in ``run``: this loop is the whole cost of a simulation."""

    def __init__(self, model: EngineModel, limits: Limits, gap_counts: Integers, cache: ReplicaCache | None) -> None:
        self._model = model
        self._cache = cache
        self._limits = limits
        self._counts = gap_counts
        self.refused = 0
        self.steps = 0
        self.sequence_steps = 0
        self.busy_seconds = 0.0

    def run(
        self,
        workload: Workload,
        computed: Integers,
        mine: Integers,
        arrival: Floats,
        first: Floats,
        end: Floats,
        clients: int | None,
    ) -> None:
        """Fill ``first`` and ``end`` (absolute seconds) at the indices ``mine``, and ``computed`` where there is a
        cache; of a closed loop ``arrival`` too.
        """
        arrivals = arrival[mine].tolist()
        if clients is not None:
            arrivals[clients:] = [math.inf] * len(arrivals[clients:])
        prompts, outputs = workload.prompt_tokens[mine].tolist(), workload.output_tokens[mine].tolist()
        cache, to_compute, cached = self._cache, computed[mine].tolist(), [0] * len(arrivals)
        firsts, ends = [math.nan] * len(arrivals), [math.nan] * len(arrivals)
        limits, model = self._limits, self._model
        cap, most_queued = limits.cap, math.inf if limits.max_queue is None else limits.max_queue
        memory = math.inf if model.kv_tokens is None else model.kv_tokens
        planes = [
            (p.fixed, p.per_sequence, p.per_prompt_token, p.per_context_token, p.per_prompt_pair) for p in model.planes
        ]
        counts: dict[int, int] = {}
        log, sqrt, ceil = math.log, math.sqrt, math.ceil
        queue: deque[int] = deque()
        prefilling: deque[list[int]] = deque()
        finishing: list[tuple[int, int]] = []
        now = busy = 0.0
        steps = sequence_steps = decoding = context = reserved = upcoming = 0
        total = len(arrivals)
        free = total if clients is None else min(clients, total)
        while True:
            while upcoming < total and arrivals[upcoming] <= now:
                if len(queue) - max(0, cap - decoding - len(prefilling)) >= most_queued:
                    self.refused += 1
                    if free < total:
                        arrivals[free] = now
                        free += 1
                else:
                    queue.append(upcoming)
                upcoming += 1
            while queue and decoding + len(prefilling) < cap:
                index = queue[0]
                needed = prompts[index] + outputs[index]
                if reserved + needed > memory:
                    break
                reserved += needed
                if cache is not None:
                    to_compute[index] = cache.admit(index, prompts[index], outputs[index])
                    cached[index] = prompts[index] - to_compute[index]
                prefilling.append([queue.popleft(), 0])
            if not prefilling and not decoding:
                if upcoming >= total:
                    break
                now = arrivals[upcoming]
                continue
            done: list[int] = []
            if prefilling:
                room = max(SMALLEST_CHUNK, limits.max_batched_tokens - decoding)
                tokens, pairs, done = pack_prompts(prefilling, room, to_compute, cached)
                jump = 1
                seconds = max(
                    fixed + each * decoding + prompt * tokens + read * context + pair * pairs
                    for fixed, each, prompt, read, pair in planes
                )
            else:
                jump = finishing[0][0] - steps
                if upcoming < free and decoding < cap:
                    # least n whose steps reach the next arrival: n a + n (n - 1) / 2 b >= wait, on the slowest plane
                    wait = arrivals[upcoming] - now
                    for fixed, each, _, read, _ in planes:
                        a, b = fixed + each * decoding + read * context, read * decoding
                        half = a - b / 2
                        root = wait / a if b == 0 else (sqrt(half * half + 2 * b * wait) - half) / b
                        jump = min(jump, max(1, ceil(root)))
                grown = context + decoding * (jump - 1) / 2
                seconds = jump * max(fixed + each * decoding + read * grown for fixed, each, _, read, _ in planes)
            now += seconds
            busy += seconds
            steps += jump
            context += decoding * jump
            sequence_steps += (decoding + len(done)) if prefilling or done else decoding * jump
            if decoding:
                place = int(log(seconds / jump) * _BINS_PER_E) + _BIN_OFFSET
                counts[place] = counts.get(place, 0) + decoding * jump
            while finishing and finishing[0][0] <= steps:
                _, index = heappop(finishing)
                ends[index] = now
                if free < total:
                    arrivals[free] = now
                    free += 1
                length = prompts[index] + outputs[index]
                decoding -= 1
                context -= length
                reserved -= length
            for index in done:
                firsts[index] = now
                if outputs[index] == 1:
                    ends[index] = now
                    if free < total:
                        arrivals[free] = now
                        free += 1
                    reserved -= prompts[index] + 1
                else:
                    heappush(finishing, (steps + outputs[index] - 1, index))
                    decoding += 1
                    context += prompts[index] + 1
        first[mine], end[mine] = firsts, ends
        if cache is not None:
            computed[mine] = to_compute
        if clients is not None:
            arrival[mine] = arrivals
        self.steps, self.sequence_steps, self.busy_seconds = steps, sequence_steps, busy
        for place, count in counts.items():
            self._counts[min(max(place, 0), _BINS - 1)] += count
