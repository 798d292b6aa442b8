"""A recorded stream of requests through the whole cache, on a clock set by the stream, with no model.

Each miss stores a marker in place of an answer, so that a hit tells whose answer was served. The labels (which
requests want the same answer) stay outside: they are looked at when all is over.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cache.calibration import Calibration, Label, wilson
from cache.control import CacheControl
from cache.identity import CHAT_PATH, Address
from cache.json_lines import apart, finite, name_or_number, read_json_lines
from cache.lookup import CacheRequest, Lookup
from cache.store import Budget, StoreUnavailable
from cache.tiers import ResponseCache

MODEL = "replay"
BUDGET_SECONDS = 60.0
"""For the store and the embedder: a busy machine shall change how long it takes, never what is decided."""
_CURVE_STEPS = 20


class StreamError(ValueError):
    """A line that is no request: names the line and the mend."""


@dataclass(frozen=True, slots=True)
class Recorded:
    id: str | int | float
    """As the stream has it."""
    seconds: float
    """Unix time, or any other clock."""
    tenant: str
    messages: list[Any]
    intent_id: str
    """Requests of one intent want the same answer; never shown to the cache."""
    no_cache: bool = False
    """The client sent ``no-store``."""


@dataclass(frozen=True, slots=True)
class Replayed:
    request: Recorded
    hit: bool
    source: Recorded | None
    """Whose answer was served; of a neighbour that was refused, None."""
    why: str
    semantic: bool = False
    score: float | None = None
    nearest: Recorded | None = None
    """The neighbour judged best, served or not."""

    def line(self) -> dict[str, Any]:
        """``source`` is whose answer was served, ``nearest`` whose was judged best, with its ``score``; or null."""
        return {
            "id": self.request.id,
            "hit": self.hit,
            "source": None if self.source is None else self.source.id,
            "why": self.why,
            "score": None if self.score is None else round(self.score, 6),
            "nearest": None if self.nearest is None else self.nearest.id,
        }

    @property
    def wrong(self) -> bool:
        return self.source is not None and self.source.intent_id != self.request.intent_id

    @property
    def label(self) -> Label | None:
        """What a verification of this judgement would have taught."""
        if self.score is None or self.nearest is None or self.score <= 0.0 or self.why == "contested":
            return None  # contested: no threshold would have served it
        return Label(self.score, self.nearest.intent_id == self.request.intent_id)


def read_stream(lines: Iterable[bytes | str]) -> list[Recorded]:
    """Blank lines are skipped, further keys ignored.

    Raises:
        StreamError: naming the line, what is wrong, and what was expected.
    """
    out: list[Recorded] = []
    for number, data in read_json_lines(lines, StreamError):
        request = _recorded(data, number)
        if out and request.seconds < out[-1].seconds:
            raise StreamError(
                f"line {number}: `t` {request.seconds:g} lies before the {out[-1].seconds:g} of the request before it; "
                "sort the stream by `t`"
            )
        out.append(request)
    if not out:
        raise StreamError('no requests: expected lines {"id", "t", "tenant", "messages", "intent_id"}')
    return out


def _recorded(data: Any, number: int) -> Recorded:
    if not isinstance(data, dict):
        raise StreamError(f'line {number}: expected an object {{"id", "t", "tenant", "messages", "intent_id"}}')
    for key in ("id", "t", "tenant", "messages", "intent_id"):
        if key not in data:
            raise StreamError(f"line {number}: `{key}` is missing")
    for key in ("id", "tenant", "intent_id"):
        if not name_or_number(data[key]):
            raise StreamError(f"line {number}: `{key}` must be a string or a finite number")
    seconds = data["t"]
    if not finite(seconds):
        raise StreamError(f"line {number}: `t` must be a number of seconds")
    messages = data["messages"]
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise StreamError(f"line {number}: `messages` must be a list of objects with `role` and `content`")
    no_cache = data.get("no_cache") or False
    if not isinstance(no_cache, bool):
        raise StreamError(f"line {number}: `no_cache` must be true or false")
    return Recorded(
        data["id"], float(seconds), apart(data["tenant"]), messages, apart(data["intent_id"]), no_cache=no_cache
    )


class StreamClock:
    """Seconds of the request in hand: the cache's own clock during a replay."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def replay(
    stream: Sequence[Recorded],
    cache: ResponseCache,
    clock: StreamClock,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Replayed], float]:
    """One result a request, in order, and the seconds that the lookups took. ``cache`` was built on ``clock``."""
    out: list[Replayed] = []
    dying: list[tuple[float, str]] = []
    spent = 0.0
    for number, request in enumerate(stream):
        clock.seconds = request.seconds
        await _bury(cache, dying, request.seconds)
        lookup_request = CacheRequest(
            tenant=request.tenant,
            path=CHAT_PATH,
            payload={"model": MODEL, "messages": request.messages},
            model=MODEL,
            variants=(MODEL,),
            now=request.seconds,
            cache_control=CacheControl(no_store=request.no_cache),
        )
        started = time.perf_counter()
        lookup = await cache.lookup(lookup_request)
        spent += time.perf_counter() - started
        out.append(_result(request, lookup, stream))
        if not lookup.hit and lookup.storable:
            stored = await cache.store(lookup, _marker(number), variant=MODEL)
            if stored.stored and lookup.address is not None:
                heapq.heappush(dying, (request.seconds + cache.settings.ttl_seconds, lookup.address.cache_id))
        if progress is not None:
            progress(number + 1)
    return out, spent


async def _bury(cache: ResponseCache, dying: list[tuple[float, str]], now_seconds: float) -> None:
    """What has expired on the stream's clock goes, as it would by itself on the server's."""
    while dying and dying[0][0] <= now_seconds:
        address = Address.parse(heapq.heappop(dying)[1])
        budget = Budget(BUDGET_SECONDS)
        try:
            kept = await cache.shared.fetch(address, budget)
            if kept is not None and not kept.fresh(now_seconds):
                await cache.shared.remove(address, cache.index, budget)
        except StoreUnavailable:
            return


def _result(request: Recorded, lookup: Lookup, stream: Sequence[Recorded]) -> Replayed:
    source = None if lookup.answer is None else stream[_number(lookup.answer.body())]
    nearest = None if lookup.judged is None else stream[_number(lookup.judged[1].body())]
    why = f"guard:{lookup.guard}" if lookup.guard else lookup.why
    return Replayed(request, lookup.hit, source, why, lookup.tier == "semantic", lookup.score, nearest)


def _marker(number: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"answer {number}"}
    return {
        "id": f"replay-{number}",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
    }


def _number(body: dict[str, Any]) -> int:
    return int(str(body["id"]).removeprefix("replay-"))


def report(results: Sequence[Replayed], lookup_seconds: float) -> dict[str, Any]:
    """``hit_rate`` over all requests; ``wrong_of_hits`` over hits of every tier, ``semantic`` that tier's alone."""
    hits = [result for result in results if result.hit]
    wrong = sum(result.wrong for result in hits)
    semantic = [result for result in hits if result.semantic]
    semantic_wrong = sum(result.wrong for result in semantic)
    whys: dict[str, int] = {}
    for result in results:
        whys[result.why] = whys.get(result.why, 0) + 1
    return {
        "requests": len(results),
        "hits": len(hits),
        "hit_rate": len(hits) / len(results) if results else 0.0,
        "wrong": wrong,
        "wrong_of_hits": wrong / len(hits) if hits else 0.0,
        "wrong_of_hits_wilson": list(wilson(wrong, len(hits))),
        "semantic": {
            "hits": len(semantic),
            "wrong": semantic_wrong,
            "wrong_of_hits": semantic_wrong / len(semantic) if semantic else 0.0,
            "wilson": list(wilson(semantic_wrong, len(semantic))),
        },
        "no_cache_violations": sum(
            result.hit and (result.request.no_cache or (result.source is not None and result.source.no_cache))
            for result in results
        ),
        "tenant_violations": sum(
            result.source is not None and result.source.tenant != result.request.tenant for result in hits
        ),
        "lookups_per_second": len(results) / lookup_seconds if lookup_seconds > 0 else 0.0,
        "curve": curve(results),
        "why": dict(sorted(whys.items(), key=lambda item: -item[1])),
    }


def labels_of(results: Sequence[Replayed], source: str) -> Calibration:
    """What verifying every judgement would have taught, with ``intent_id`` for the verification."""
    return Calibration(tuple(label for result in results if (label := result.label) is not None), source, True)


def curve(results: Sequence[Replayed]) -> list[dict[str, float]]:
    """What the same judgements give at other thresholds of the score; the state of the cache is that of this run."""
    exact = [result for result in results if result.hit and not result.semantic]
    judged = [(result.score, result.label) for result in results if result.label is not None]
    wrong_exact = sum(result.wrong for result in exact)
    points = []
    for step in range(_CURVE_STEPS + 1):
        threshold = step / _CURVE_STEPS
        served = [label for score, label in judged if score is not None and score > threshold and label is not None]
        hits, wrong = len(exact) + len(served), wrong_exact + sum(not label.right for label in served)
        points.append(
            {
                "threshold": threshold,
                "hit_rate": hits / len(results) if results else 0.0,
                "wrong_of_hits": wrong / hits if hits else 0.0,
            }
        )
    return points
