"""One request's way: cache, admission, engine, receipt. One direction, and every exit settles."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace

import orjson

from cache.control import Outcome
from cache.entry import CachedAnswer
from cache.lease import Rank, most_urgent
from cache.lookup import CacheRequest, Lookup
from cache.relay import Along, RelayBroken
from cache.single_flight import Flight, FlightIncomplete, Seat, SingleFlight
from cache.streams import answer_to_sse, sse_to_answer
from cache.tiers import ResponseCache
from metering.receipt import Receipt, receipt_of
from serving.accounting import UNKNOWN, account, count_request
from serving.admission.queue import AdmissionQueue
from serving.api.endings import endings_of
from serving.api.forms import form_of
from serving.api.frames import StreamEnd, frame_of, stream_error
from serving.api.receipt_headers import receipt_headers
from serving.call import Call, Reply, parsed_answer
from serving.engine_runs import EngineRuns
from serving.engines.base import Engine
from serving.engines.response_events import plain_usage
from serving.errors import DeadlineExceeded, EngineUnavailable, GatewayError, NeverBegun, NotFound, RateLimited
from serving.grey_zone import GreyZone
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.own_calls import OwnCalls
from serving.run_alone import Ran, RunAlone
from serving.shadow import ShadowVerifier

log = logging.getLogger("wattgate")

_NO_ROOM = frozenset({"queue_full", "deadline_unmeetable", NeverBegun.code})
_AVOIDED = "wattgate_avoided_joules_total", "wattgate_avoided_grams_total", "wattgate_avoided_cost_total"
_EXCESS = "wattgate_excess_joules_total", "wattgate_excess_grams_total", "wattgate_excess_cost_total"


class Gateway:
    """Everything a replica does with a request, behind ``open``."""

    def __init__(
        self,
        *,
        engine: Engine,
        cap: AdmissionQueue,
        caps: Mapping[str, AdmissionQueue] | None = None,
        meter: MeterLink,
        metrics: Metrics,
        cache: ResponseCache | None = None,
        reveal_similarity: bool = False,
        shadow: ShadowVerifier | None = None,
        grey_zone: GreyZone | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.runs = EngineRuns(engine, cap, caps or {}, meter, metrics, clock)
        self._own = OwnCalls(self.runs, clock)
        self.metrics = metrics
        self.cache = cache
        self._reveal_similarity = reveal_similarity
        self.shadow = shadow
        self._grey_zone = grey_zone
        self._alone = SingleFlight()
        """Runs that are not shared."""
        self._numbers = itertools.count()
        self._clock = clock
        self._wall = wall

    @property
    def engine(self) -> Engine:
        return self.runs.engine

    @property
    def meter(self) -> MeterLink:
        return self.runs.meter

    @contextlib.asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[Reply]:
        """Answer a call. Unary replies are complete when the context is entered; streams run inside it.

        Raises:
            GatewayError: mapped to its status; nothing has been sent then.
        """
        status = "200"
        try:
            async with asyncio.timeout_at(self._loop_time(call.deadline_seconds)):
                lookup = await self._lookup(call)
                if lookup is not None and lookup.hit:
                    reply = self._serve_hit(call, lookup)
                    yield reply
                    return
                if call.cache_control.only_if_cached:
                    raise DeadlineExceeded("Nothing is cached for this request.", code="only_if_cached")
                model = self.runs.model(call.model)
                self.runs.check_length(call, model)
                seat, frames = await self._board(call, lookup)
                async with seat:
                    if call.stream:
                        yield Reply(self._headers(call, lookup), self._relay(call, lookup, seat, frames))
                    else:
                        body, receipt = await self._unary(call, lookup, seat, frames)
                        yield Reply(self._headers(call, lookup) | receipt_headers(receipt), _one(body))
        except GatewayError as error:
            status = str(error.status)
            if error.code in _NO_ROOM and isinstance(error, RateLimited | NeverBegun):
                self._found_no_room(call, error.code)
            raise
        except TimeoutError:
            status = "504"
            if not call.begun:
                self._found_no_room(call, NeverBegun.code)
                raise NeverBegun from None
            raise DeadlineExceeded("The answer was not complete by the request's deadline.") from None
        except asyncio.CancelledError:
            status = "499"
            raise
        except GeneratorExit:
            status = "499"
            raise
        except Exception:
            status = "500"
            raise
        finally:
            self._account(call, status)

    def _loop_time(self, deadline_seconds: float) -> float:
        return asyncio.get_running_loop().time() + (deadline_seconds - self._clock())

    # The cache.

    async def _lookup(self, call: Call) -> Lookup | None:
        if self.cache is None:
            return None
        try:
            model = self.runs.model(call.model)
        except NotFound:
            if self.engine.models():
                raise
            return None
        variant = f"{model.name}@{model.revision or '-'}:{model.dtype or '-'}"
        lookup = await self.cache.lookup(
            CacheRequest(
                tenant=call.tenant,
                path=call.path,
                payload=call.payload,
                model=model.name,
                variants=(variant,),
                now=self._wall(),
                cache_control=call.cache_control,
            )
        )
        if self._grey_zone is not None and not lookup.hit and not call.cache_control.only_if_cached:
            await self._grey_zone.resolve(lookup, self._own.grey_zone)
        call.outcome = lookup.outcome
        return lookup

    def _serve_hit(self, call: Call, lookup: Lookup) -> Reply:
        assert lookup.answer is not None
        body = lookup.answer.body()
        spent = self._clock() - call.received_seconds
        receipt = self._book_hit(call, receipt_of(lookup.answer.receipt), spent)
        usage = dict(body.get("usage") or {})
        usage["wattgate"] = receipt.as_dict()
        body["usage"] = usage
        call.usage = usage
        call.endings = endings_of(body)
        call.first_token_seconds = self._clock()
        call.overhead_seconds = spent
        self.metrics.observe("wattgate_overhead_seconds", spent, "cache")
        if self.shadow is not None and lookup.outcome is Outcome.HIT_SEMANTIC:
            self.shadow.hit(lookup, self._own.shadow)
        headers = self._headers(call, lookup) | receipt_headers(receipt)
        if not call.stream:
            return Reply(headers, _one(orjson.dumps(body)))
        end = StreamEnd(call.include_usage)
        frames = [out for frame in answer_to_sse(body, include_usage=True) for out in end.feed(frame)]
        return Reply(headers, _each([*frames, *end.last(receipt.as_dict())]))

    def _book_hit(self, call: Call, original: Receipt | None, lookup_seconds: float) -> Receipt:
        """Of an answer that this call's own work did not make; ``original``: of the run that made it."""
        receipt = call.hit = self.meter.hit(call.request_id, original, call.outcome.value, lookup_seconds)
        if original is not None:
            call.avoided_flops = (original.flops_prefill or 0) + (original.flops_decode or 0)
        labels = (call.model, call.tenant)
        if receipt.avoided_joules:
            # a counter cannot fall: a hit that cost more than the run it replaced is counted beside
            joules, grams, cost = _AVOIDED if receipt.avoided_joules > 0 else _EXCESS
            self.metrics.add(joules, abs(receipt.avoided_joules), *labels)
            self.metrics.add(grams, abs(receipt.avoided_grams), *labels)
            if receipt.avoided_cost:
                self.metrics.add(cost, abs(receipt.avoided_cost), *labels)
        if receipt.energy_joules is not None:
            self.metrics.add("wattgate_hit_joules_total", receipt.energy_joules.total, *labels)
        return receipt

    # Sharing a run.

    async def _ride_alone(self, call: Call) -> tuple[RunAlone, AsyncIterator[bytes]]:
        """A run that nobody can share and nothing keeps: in the request's own task, frame by frame."""
        context = self.runs.run(call)
        answer, trace = await context.__aenter__()
        alone = RunAlone(context)

        async def frames() -> AsyncIterator[bytes]:
            watch = self.runs.watch(call, answer)
            async for frame in answer.frames:
                if watch is not None:
                    watch(frame)
                yield frame
            alone.result = Ran(self.meter.provisional(trace, call.outcome.value), answer.first_token_seconds())
            # a slow reader of a complete answer holds no slot of the engine
            await alone.close()

        return alone, frames()

    async def _board(self, call: Call, lookup: Lookup | None) -> tuple[Seat | RunAlone, AsyncIterator[bytes]]:
        """A seat on a run that has begun to answer, and its frames in the form that the call asks for.

        Raises:
            GatewayError: the run's, told to everyone aboard; never one that another's deadline or class, or another
            replica, brought about.
        """
        if self.cache is None or lookup is None or not lookup.storable:
            return await self._ride_alone(call)
        while True:
            if lookup.shareable and lookup.key is not None:
                flights, key = self.cache.flights, lookup.key
            else:
                flights, key = self._alone, str(next(self._numbers))
            seat = flights.join(
                key,
                lambda flight: self._produce(flight, call, lookup),
                stream=call.stream,
                rank=call.priority.rank,
                waits=lambda: call.trace is None,
            )
            frames = seat.frames(stream=call.stream)
            try:
                first = await anext(frames, None)
            except BaseException as error:
                await flights.leave(seat)
                if not seat.leader and _only_the_leaders(error, seat.flight, call):
                    continue
                if isinstance(error, FlightIncomplete):
                    raise _broke_off() from None
                raise
            if first is None:
                await flights.leave(seat)
                raise _broke_off()
            if not seat.leader or isinstance(seat.flight.result, CachedAnswer | Along):
                call.outcome = lookup.outcome = Outcome.HIT_EXACT
                lookup.age_seconds = 0.0
                how = "replica" if seat.leader else "flight"
                self.metrics.add("wattgate_cache_shared_total", 1, how)
            return seat, _with_first(first, frames)

    async def _produce(self, flight: Flight, call: Call, lookup: Lookup | None) -> None:
        """The run itself, in a task of its own: its leader may go, the others keep it."""
        call.leading = True
        try:
            await self._fly(flight, call, lookup)
        finally:
            call.run_ended()

    async def _fly(self, flight: Flight, call: Call, lookup: Lookup | None) -> None:
        async with contextlib.AsyncExitStack() as stack:
            turn = None
            if self.cache is not None and lookup is not None and lookup.shareable:
                turn = await stack.enter_async_context(self.cache.turn(lookup, _rank_of(call), follow=flight.stream))
                if turn.answer is not None:
                    # another replica has just computed it
                    body = turn.answer.body()
                    for frame in answer_to_sse(body, include_usage=True) if flight.stream else [orjson.dumps(body)]:
                        flight.publish(frame)
                    flight.finish(turn.answer)
                    return
                if turn.along is not None:
                    await _pass_on(turn.along, flight)
                    return
            storable = self.cache is not None and lookup is not None and lookup.storable
            kept: list[bytes] = []
            outbound = None
            async with self.runs.run(call) as (answer, trace):
                # another model's answer is not given as this one's
                if self.cache is not None and turn is not None and answer.fallback is None:
                    outbound = await stack.enter_async_context(self.cache.offer(turn, flight))
                watch = self.runs.watch(call, answer)
                async for frame in answer.frames:
                    if watch is not None:
                        watch(frame)
                    await flight.room()
                    flight.publish(frame)
                    if storable:
                        kept.append(frame)
                receipt = self.meter.provisional(trace, call.outcome.value)
                first_token_seconds = answer.first_token_seconds()
                # another model's answer is not kept as this one's
                storable = storable and answer.fallback is None
            complete = None
            if storable:
                complete = sse_to_answer(kept) if flight.stream else parsed_answer(b"".join(kept))
            if self.cache is not None and lookup is not None and complete is not None:
                if self.shadow is not None:
                    self.shadow.missed(lookup, complete)
                # before the last frame leaves: who has read an answer to its end finds it in the cache
                variant = lookup.request.variants[0]
                await self.cache.store(lookup, complete, receipt=receipt.as_dict(), variant=variant, turn=turn)
            flight.finish(Ran(receipt, first_token_seconds))
            # the end for other replicas may take a while, and is nothing that a client should be charged late for
            call.run_ended()
            if outbound is not None:
                await outbound.end(receipt.as_dict())

    def _settle(self, call: Call, lookup: Lookup | None, seat: Seat | RunAlone) -> Receipt:
        """The receipt of one of those who shared a run that is complete. The run is its leader's; the others hit."""
        result = seat.flight.result
        if isinstance(result, Ran):
            if seat.leader:
                if result.first_token_seconds is not None:
                    call.first_token_seconds = max(result.first_token_seconds, call.received_seconds)
                return result.receipt
            original: Receipt | None = result.receipt
            note = "Shared the run of an identical request that was under way."
        elif isinstance(result, Along):
            original = receipt_of(result.receipt)
            note = "Shared the run of an identical request that was under way in another replica."
        else:
            assert isinstance(result, CachedAnswer)
            original = receipt_of(result.receipt)
            note = "Waited for the answer that another replica was computing."
        receipt = self._book_hit(call, original, lookup.lookup_seconds if lookup is not None else 0.0)
        return replace(receipt, notes=(*receipt.notes, note))

    async def _unary(
        self, call: Call, lookup: Lookup | None, seat: Seat | RunAlone, frames: AsyncIterator[bytes]
    ) -> tuple[bytes, Receipt]:
        try:
            raw = b"".join([frame async for frame in frames])
        except FlightIncomplete:
            raise _broke_off() from None
        answered = self._clock()
        body = parsed_answer(raw)
        if body is None:
            raise _broke_off()
        receipt = self._settle(call, lookup, seat)
        usage = body["usage"] = dict(body.get("usage") or {})
        call.usage = plain_usage(usage)
        call.endings = endings_of(body)
        usage["wattgate"] = receipt.as_dict()
        out = orjson.dumps(body)
        call.overhead_seconds += self._clock() - answered
        return out, receipt

    async def _relay(
        self, call: Call, lookup: Lookup | None, seat: Seat | RunAlone, frames: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        end = form_of(call.path).stream_end(call.include_usage)
        try:
            async for frame in frames:
                if call.first_token_seconds is None:
                    call.first_token_seconds = self._clock()
                for out in end.feed(frame):
                    yield out
        except GatewayError as error:
            end.error = error.envelope()["error"]
        except TimeoutError:
            raise
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception:
            log.exception("request %s: the engine's stream broke off", call.request_id)
            end.error = {"message": "The engine's stream broke off."}
        call.usage, call.endings = end.usage, end.endings
        if end.error is not None or not end.done:
            yield frame_of(stream_error(end.error, self.engine.status().ready))
            return
        for out in end.last(self._settle(call, lookup, seat).as_dict()):
            yield out

    # The end.

    def _headers(self, call: Call, lookup: Lookup | None) -> dict[str, str]:
        headers = self._cache_headers(lookup) if lookup is not None else {"x-cache": Outcome.BYPASS.value}
        if call.fallback is not None:
            headers["x-wattgate-fallback"] = call.fallback
        headers["x-wattgate-queue-ms"] = f"{call.queue_seconds * 1000:.1f}"
        headers["x-wattgate-overhead-ms"] = f"{call.overhead_seconds * 1000:.2f}"
        if call.first_token_seconds is not None:
            headers["x-wattgate-ttft-ms"] = f"{(call.first_token_seconds - call.received_seconds) * 1000:.1f}"
        return headers

    def _cache_headers(self, lookup: Lookup) -> dict[str, str]:
        headers = lookup.headers(authorised=self._reveal_similarity)
        if self._reveal_similarity and lookup.guard is not None:
            headers["x-cache-guard"] = lookup.guard
        return headers

    def refused(self, path: str, status: int) -> None:
        """Count a request that was turned away before it became a call: nobody's yet, and of no model."""
        endpoint = path.removeprefix("/v1/")
        count_request(self.metrics, UNKNOWN, UNKNOWN, endpoint, str(status), Outcome.BYPASS.value)

    def turned_away(self, call: Call, status: int) -> None:
        """Count a call that its tenant's limits refused."""
        self._account(call, str(status))

    def _found_no_room(self, call: Call, code: str) -> None:
        model = call.model if self._known(call) else UNKNOWN
        self.metrics.add("wattgate_admission_refusals_total", 1, model, call.priority.value, code)

    def _known(self, call: Call) -> bool:
        return any(served.name == call.model for served in self.engine.models())

    def _account(self, call: Call, status: str) -> None:
        account(call, status, self._clock(), known=self._known(call), metrics=self.metrics, meter=self.meter)


def _broke_off() -> EngineUnavailable:
    return EngineUnavailable("The engine's answer broke off.", code="engine_error")


class _RunElsewhereBrokeOff(EngineUnavailable):
    """Another replica's run; this one's engine may be well."""


async def _pass_on(along: Along, flight: Flight) -> None:
    """Another replica's stream to those aboard here. Raises ``GatewayError`` where its end does not come."""
    # from the first frame on it is known to be another's
    flight.result = along
    try:
        async for frame in along.frames():
            flight.publish(frame)
    except RelayBroken:
        raise _RunElsewhereBrokeOff("The engine's answer broke off.", code="engine_error") from None
    flight.finish(along)


def _rank_of(call: Call) -> Rank:
    """A run that has begun is waited for by every class; one in the queue by none that is more urgent."""
    return lambda: call.priority.rank if call.trace is None else most_urgent()


def _only_the_leaders(error: BaseException, flight: Flight, call: Call) -> bool:
    """Whether one who has read nothing of the run may run for himself: it ended for its leader's deadline or class,
    or in another replica.
    """
    if isinstance(error, RateLimited):
        return error.code == "deadline_unmeetable" or (error.code == "queue_full" and call.priority.rank < flight.rank)
    return isinstance(error, DeadlineExceeded | _RunElsewhereBrokeOff)


async def _with_first(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for frame in others:
        yield frame


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _each(frames: list[bytes]) -> AsyncIterator[bytes]:
    for frame in frames:
        yield frame
