"""One request's way: cache, admission, engine, receipt. One direction, and every exit settles."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from cache.control import CacheControl, Outcome
from cache.lookup import CacheRequest, Lookup
from cache.streams import answer_to_sse, sse_to_answer
from cache.tiers import ResponseCache
from metering.receipt import EnergyJoules, Receipt
from metering.work import Method, Served
from serving.admission.queue import AdmissionQueue
from serving.api.body import asked_tokens
from serving.api.frames import StreamEnd, frame_of
from serving.engines.base import Engine, EngineAnswer, EngineModel, EngineRequest
from serving.errors import DeadlineExceeded, EngineUnavailable, GatewayError, InvalidRequest, NotFound
from serving.meter_link import MeterLink, Trace
from serving.metrics import Metrics
from serving.tenancy.tenant import Priority

log = logging.getLogger("wattgate")


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
    first_token_seconds: float | None = None
    usage: dict[str, Any] | None = None
    hit: Receipt | None = None
    """Of an answer from the cache."""
    avoided_flops: int = 0
    trace: Trace | None = None
    """Of the run that this call began."""
    running: bool = False
    when_run_ends: list[Callable[[], None]] = field(default_factory=list)
    """Called once, if the call has gone while others keep its run going."""

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


class Gateway:
    """Everything a replica does with a request, behind ``open``."""

    def __init__(
        self,
        *,
        engine: Engine,
        cap: AdmissionQueue,
        meter: MeterLink,
        metrics: Metrics,
        cache: ResponseCache | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.engine = engine
        self.cap = cap
        self.meter = meter
        self.metrics = metrics
        self.cache = cache
        self._clock = clock
        self._wall = wall

    def model(self, name: str) -> EngineModel:
        """Raises ``NotFound`` naming the models there are."""
        models = self.engine.models()
        for model in models:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in models) or "none yet: the engine is starting"
        raise NotFound(
            f"The model '{name}' does not exist here. Served: {known}.", param="model", code="model_not_found"
        )

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
                model = self.model(call.model)
                self._check_length(call, model)
                if call.stream:
                    async with self._run(call) as (answer, trace):
                        yield Reply(self._headers(call, lookup), self._relay(call, answer, trace, lookup))
                else:
                    body, receipt = await self._unary(call, lookup)
                    yield Reply(self._headers(call, lookup) | _receipt_headers(receipt), _one(body))
        except GatewayError as error:
            status = str(error.status)
            raise
        except TimeoutError:
            status = "504"
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
            model = self.model(call.model)
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
        call.outcome = lookup.outcome
        return lookup

    def _serve_hit(self, call: Call, lookup: Lookup) -> Reply:
        assert lookup.answer is not None
        body = lookup.answer.body()
        spent = self._clock() - call.received_seconds
        original = receipt_of(lookup.answer.receipt)
        receipt = call.hit = self.meter.hit(call.request_id, original, lookup.outcome.value, spent)
        if original is not None:
            call.avoided_flops = (original.flops_prefill or 0) + (original.flops_decode or 0)
        usage = dict(body.get("usage") or {})
        usage["wattgate"] = receipt.as_dict()
        body["usage"] = usage
        call.usage = usage
        call.first_token_seconds = self._clock()
        self.metrics.observe("wattgate_overhead_seconds", spent, "cache")
        labels = (call.model, call.tenant)
        if receipt.avoided_joules > 0:
            self.metrics.add("wattgate_avoided_joules_total", receipt.avoided_joules, *labels)
            self.metrics.add("wattgate_avoided_grams_total", max(0.0, receipt.avoided_grams), *labels)
        if receipt.energy_joules is not None:
            self.metrics.add("wattgate_hit_joules_total", receipt.energy_joules.total, *labels)
        headers = lookup.headers() | _receipt_headers(receipt)
        if not call.stream:
            return Reply(headers, _one(orjson.dumps(body)))
        end = StreamEnd(call.include_usage)
        frames = [out for frame in answer_to_sse(body, include_usage=True) for out in end.feed(frame)]
        return Reply(headers, _each([*frames, *end.last(receipt.as_dict())]))

    async def _store(self, lookup: Lookup | None, body: dict[str, Any] | None, receipt: Receipt) -> None:
        if self.cache is not None and lookup is not None and lookup.storable and body is not None:
            variant = lookup.request.variants[0]
            await self.cache.store(lookup, body, receipt=receipt.as_dict(), variant=variant)

    # The engine.

    def _check_length(self, call: Call, model: EngineModel) -> None:
        limit, asked = model.max_context_tokens, asked_tokens(call.payload)
        if limit is not None and asked is not None and asked > limit:
            raise InvalidRequest(
                f"max_tokens is {asked}, and this model's context is {limit} tokens.",
                param="max_tokens",
                code="context_length_exceeded",
            )

    @contextlib.asynccontextmanager
    async def _run(self, call: Call) -> AsyncIterator[tuple[EngineAnswer, Trace]]:
        trace = self.meter.trace(call.request_id, call.tenant, call.model)
        payload = call.payload
        if call.stream and not call.include_usage:
            payload = payload | {"stream_options": {**(payload.get("stream_options") or {}), "include_usage": True}}
        request = EngineRequest(call.request_id, call.path, payload, call.model, call.tenant)
        asked = self._clock()
        async with self.cap.permit(
            call.deadline_seconds, tenant=call.tenant, priority=call.priority, prefill_tokens=call.prompt_tokens
        ) as waited:
            call.queue_seconds = waited
            self.metrics.observe("wattgate_queue_seconds", waited, call.model)
            call.overhead_seconds = asked - call.received_seconds
            self.metrics.observe("wattgate_overhead_seconds", call.overhead_seconds, "engine")
            call.trace, call.running = trace, True
            try:
                async with self.engine.run(request, trace.record) as answer:
                    yield answer, trace
            finally:
                call.running = False
                for told in call.when_run_ends:
                    told()
                # also for a client that has gone, a deadline and a dead engine: what was executed is booked
                self.meter.finished(call.request_id, call.outcome.value)

    async def _unary(self, call: Call, lookup: Lookup | None) -> tuple[bytes, Receipt]:
        async with self._run(call) as (answer, trace):
            raw = b"".join([frame async for frame in answer.frames])
            call.first_token_seconds = answer.first_token_seconds()
        answered = self._clock()
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise EngineUnavailable("The engine's answer broke off.", code="engine_error") from None
        receipt = self.meter.provisional(trace, call.outcome.value)
        usage = body["usage"] = dict(body.get("usage") or {})
        call.usage = usage
        usage["wattgate"] = receipt.as_dict()
        await self._store(lookup, body, receipt)
        out = orjson.dumps(body)
        call.overhead_seconds += self._clock() - answered
        return out, receipt

    async def _relay(
        self, call: Call, answer: EngineAnswer, trace: Trace, lookup: Lookup | None
    ) -> AsyncIterator[bytes]:
        keep = lookup is not None and lookup.storable
        kept: list[bytes] = []
        end = StreamEnd(call.include_usage)
        try:
            async for frame in answer.frames:
                if call.first_token_seconds is None:
                    call.first_token_seconds = self._clock()
                for out in end.feed(frame):
                    if keep:
                        kept.append(out)
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
        call.usage = end.usage
        if (engine_saw := answer.first_token_seconds()) is not None:
            call.first_token_seconds = max(engine_saw, call.received_seconds)
        if end.error is not None or not end.done:
            yield frame_of(_stream_error(end.error, self.engine.status().ready))
            return
        receipt = self.meter.provisional(trace, call.outcome.value)
        last = end.last(receipt.as_dict())
        if keep:
            await self._store(lookup, sse_to_answer([*kept, *last]), receipt)
        for out in last:
            yield out

    # The end.

    def _headers(self, call: Call, lookup: Lookup | None) -> dict[str, str]:
        headers = lookup.headers() if lookup is not None else {"x-cache": Outcome.BYPASS.value}
        headers["x-wattgate-queue-ms"] = f"{call.queue_seconds * 1000:.1f}"
        headers["x-wattgate-overhead-ms"] = f"{call.overhead_seconds * 1000:.2f}"
        if call.first_token_seconds is not None:
            headers["x-wattgate-ttft-ms"] = f"{(call.first_token_seconds - call.received_seconds) * 1000:.1f}"
        return headers

    def refused(self, path: str, status: int) -> None:
        """Count a request that was turned away before it became a call: nobody's yet, and of no model."""
        endpoint = path.removeprefix("/v1/")
        self.metrics.add(
            "wattgate_requests_total", 1, "unknown", "unknown", endpoint, str(status), Outcome.BYPASS.value
        )

    def turned_away(self, call: Call, status: int) -> None:
        """Count a call that its tenant's limits refused."""
        self._account(call, str(status))

    def _account(self, call: Call, status: str) -> None:
        now = self._clock()
        metrics, model, usage = self.metrics, call.model, call.usage or {}
        known = any(served.name == model for served in self.engine.models())
        model = model if known else "unknown"
        endpoint = call.path.removeprefix("/v1/")
        metrics.add("wattgate_requests_total", 1, model, call.tenant, endpoint, status, call.outcome.value)
        if not known:
            return
        metrics.observe("wattgate_request_seconds", now - call.received_seconds, model, endpoint)
        output = int(usage.get("completion_tokens") or 0)
        prompt = int(usage.get("prompt_tokens") or 0)
        cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        self.meter.served(_served(call, model, status, prompt, cached, output))
        if call.outcome.hit:
            metrics.add("wattgate_tokens_total", prompt + output, model, call.tenant, "avoided")
            return
        if call.first_token_seconds is not None:
            metrics.observe(
                "wattgate_time_to_first_token_seconds", call.first_token_seconds - call.received_seconds, model
            )
            if output > 1:
                spacing = (now - call.first_token_seconds) / (output - 1)
                metrics.observe("wattgate_inter_token_seconds", spacing, model)
        for kind, tokens in (("prompt", prompt - cached), ("cached_prompt", cached), ("output", output)):
            if tokens > 0:
                metrics.add("wattgate_tokens_total", tokens, model, call.tenant, kind)


def _served(call: Call, model: str, status: str, prompt: int, cached: int, output: int) -> Served:
    """A request that has ended, for the history."""
    failed = int(status != "200")
    if call.hit is None:
        return Served(model, call.tenant, 1, failed, 0, prompt, cached, output)
    spent = call.hit.energy_joules
    return Served(
        model,
        call.tenant,
        requests=1,
        failed=failed,
        hits=1,
        avoided_tokens=prompt + output,
        avoided_flops=call.avoided_flops,
        avoided_joules=call.hit.avoided_joules,
        avoided_grams=call.hit.avoided_grams,
        hit_joules=spent.total if spent is not None else 0.0,
        hit_grams=call.hit.operational_grams or 0.0,
    )


def receipt_of(stored: dict[str, Any] | None) -> Receipt | None:
    """A receipt as the cache kept it; None where there is none or it is of another make."""
    if not stored:
        return None
    try:
        values = dict(stored)
        energy = values.pop("energy_joules", None)
        if energy is not None:
            energy = EnergyJoules(**{key: value for key, value in energy.items() if key != "total"})
        values["notes"] = tuple(values.get("notes") or ())
        return Receipt(**(values | {"energy_joules": energy, "method": Method(values["method"])}))
    except (TypeError, ValueError, KeyError):
        return None


def _receipt_headers(receipt: Receipt) -> dict[str, str]:
    headers = {"x-wattgate-receipt": receipt.receipt_id, "x-wattgate-method": receipt.method.value}
    if receipt.energy_joules is not None:
        headers["x-wattgate-joules"] = f"{receipt.energy_joules.total:.6g}"
    if receipt.operational_grams is not None:
        headers["x-wattgate-grams"] = f"{receipt.operational_grams:.6g}"
    return headers


def _stream_error(error: dict[str, Any] | None, engine_ready: bool) -> dict[str, Any]:
    """The last frame of a stream that cannot be completed; no ``[DONE]`` follows it.

    The engine's own words are passed on only where they are about the request.
    """
    code = (error or {}).get("code")
    if engine_ready and error is not None and (str(code).startswith("4") or error.get("type") == "BadRequestError"):
        message, kind = str(error.get("message")), "invalid_request_error"
    elif engine_ready:
        message, kind = "The engine ended this answer before it was complete.", "server_error"
    else:
        message, kind = "The engine died while answering; send the request again.", "server_error"
    return {
        "error": {"message": message, "type": kind, "param": None, "code": "engine_error" if kind[0] == "s" else code}
    }


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _each(frames: list[bytes]) -> AsyncIterator[bytes]:
    for frame in frames:
        yield frame
