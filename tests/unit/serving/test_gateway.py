"""A request's way through, from the ASGI scope to the books."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from cache.store import StoreUnavailable
from serving.call import Call
from serving.engines.base import EngineAnswer, EngineRequest, EngineStatus
from serving.errors import EngineRefused, EngineUnavailable
from tests.unit.serving.conftest import House
from tests.unit.serving.engines.contract import until
from tests.unit.serving.fakes import answer_frames, broken_stream, chunk

NewHouse = Callable[..., House]


def text_of(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for each in chunks for choice in each["choices"])


# Answers.


async def test_a_unary_answer_carries_its_receipt(house: House) -> None:
    reply = await house.send(house.chat())
    assert reply.status == 200
    assert ChatCompletion.model_validate(reply.json).choices[0].message.content == "Hello there"
    receipt = reply.json["usage"]["wattgate"]
    assert receipt["status"] == "provisional"
    assert receipt["cache"] == "MISS"
    assert receipt["receipt_id"] == reply.headers["x-wattgate-receipt"] == reply.headers["x-request-id"]
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert {"x-wattgate-queue-ms", "x-wattgate-overhead-ms", "x-wattgate-method"} <= set(reply.headers)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_from_the_cache_tells_its_overhead_too(house: House, stream: bool) -> None:
    await house.send(house.chat())
    hit = await house.send(house.chat(stream=stream))
    assert hit.headers["x-cache"] == "HIT-EXACT"
    assert float(hit.headers["x-wattgate-overhead-ms"]) > 0
    assert float(hit.headers["x-wattgate-ttft-ms"]) > 0
    assert hit.headers["x-wattgate-queue-ms"] == "0.0"


@pytest.mark.parametrize("include_usage", [True, False])
async def test_a_stream_carries_its_receipt_in_its_last_chunk(house: House, include_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    reply = await house.send(house.chat(stream=True, **options))
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.done
    chunks = reply.chunks
    for each in chunks:
        ChatCompletionChunk.model_validate(each)
    assert text_of(chunks) == "Hello there"
    assert [bool(each.get("usage")) for each in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["usage"]["wattgate"]["cache"] == "MISS"
    assert chunks[-1]["usage"]["completion_tokens"] == 2
    # a client that did not ask for a usage chunk gets no chunk without choices
    assert (chunks[-1]["choices"] == []) is include_usage
    assert house.engine.requests[0].payload["stream_options"]["include_usage"] is True


async def test_frames_leave_as_they_come(house: House) -> None:
    step = asyncio.Event()

    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        for frame in answer_frames(request):
            yield frame
            await step.wait()

    house.engine.script = script
    exchange = house.begin(house.chat(stream=True))
    assert text_of([orjson.loads((await exchange.frames(1))[0][6:])]) == "Hello"
    assert house.engine.running == 1
    step.set()
    assert (await exchange.end()).done


@pytest.mark.parametrize("shared", [True, False])
async def test_who_looks_on_is_shown_each_frame_of_a_run_and_none_of_a_hit(house: House, shared: bool) -> None:
    frames: list[bytes] = []

    class Watch:
        def watch(self, call: Call, answer: EngineAnswer) -> Callable[[bytes], None]:
            return frames.append

    house.gateway.runs.token_watch = Watch()
    headers = {} if shared else {"cache_control": "no-store, no-cache"}
    await house.send(house.chat(stream=True), **headers)
    run = len(frames)
    assert run == len(list(answer_frames(house.engine.requests[0])))
    await house.send(house.chat(stream=True), **headers)
    assert len(frames) == (run if shared else 2 * run)


# The cache.


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
async def test_a_repeated_request_is_served_from_the_cache_in_the_form_asked_for(
    house: House, first: bool, second: bool
) -> None:
    original = await house.send(house.chat(stream=first))
    assert original.headers["x-cache"] == "MISS"
    hit = await house.send(house.chat(stream=second))
    assert hit.headers["x-cache"] == "HIT-EXACT"
    assert int(hit.headers["age"]) >= 0
    assert len(house.engine.requests) == 1
    if second:
        assert hit.done
        assert text_of(hit.chunks) == "Hello there"
        usage = hit.chunks[-1]["usage"]
    else:
        assert hit.json["choices"][0]["message"]["content"] == "Hello there"
        usage = hit.json["usage"]
    assert usage["wattgate"]["cache"] == "HIT-EXACT"
    assert usage["completion_tokens"] == 2
    assert usage["wattgate"]["receipt_id"] == hit.headers["x-request-id"] != original.headers["x-request-id"]
    assert house.count("wattgate_tokens_total", kind="avoided") == 5
    assert house.count("wattgate_tokens_total", kind="output") == 2


async def test_a_hit_dearer_than_the_run_it_replaced_is_counted_beside_what_was_avoided(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.send(house.chat())
    settled = house.gateway.meter.hit
    monkeypatch.setattr(
        house.gateway.meter,
        "hit",
        lambda *given: replace(settled(*given), avoided_joules=-2.0, avoided_grams=-0.5, avoided_cost=-0.1),
    )
    assert (await house.send(house.chat())).headers["x-cache"] == "HIT-EXACT"
    assert house.count("wattgate_excess_joules_total") == 2.0
    assert house.count("wattgate_excess_grams_total") == 0.5
    assert house.count("wattgate_excess_cost_total") == 0.1
    assert house.count("wattgate_avoided_joules_total") == 0.0


async def test_a_hit_needs_no_slot_and_no_engine(house: House) -> None:
    await house.send(house.chat())
    house.engine.now = EngineStatus(ready=False, reason="dead", fatal=True)
    house.engine.refuse = EngineUnavailable("dead")
    assert (await house.send(house.chat())).status == 200
    assert (await house.send(house.chat("other"))).status == 503


@pytest.mark.parametrize("directive", ["no-store", "no-cache"])
async def test_the_client_can_refuse_the_cache(house: House, directive: str) -> None:
    for _ in range(2):
        reply = await house.send(house.chat(), cache_control=directive)
        assert reply.headers["x-cache"] in ("BYPASS", "MISS")
    assert len(house.engine.requests) == 2


async def test_only_if_cached_is_504_on_a_miss_and_runs_nothing(house: House) -> None:
    reply = await house.send(house.chat(), cache_control="only-if-cached")
    assert (reply.status, reply.error["code"]) == (504, "only_if_cached")
    assert house.engine.requests == []


async def test_only_if_cached_is_504_without_a_cache_too(house: House) -> None:
    house.gateway.cache = None
    reply = await house.send(house.chat(), cache_control="only-if-cached")
    assert reply.status == 504
    assert house.engine.requests == []


async def test_a_store_that_fails_costs_no_answer(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*args: Any, **kwargs: Any) -> Any:
        raise StoreUnavailable("away")  # type: ignore[arg-type]

    for name in ("peek", "put", "fetch", "epochs"):
        monkeypatch.setattr(house.store, name, fail)
    logging.getLogger("cache").setLevel(logging.CRITICAL)
    for stream in (False, True):
        assert (await house.send(house.chat(stream=stream))).status == 200


async def test_tenants_do_not_share_answers(new_house: NewHouse) -> None:
    house = new_house(keys={"a": "key-a", "b": "key-b"})
    for key in ("key-a", "key-b"):
        reply = await house.send(house.chat(), authorization=f"Bearer {key}")
        assert reply.headers["x-cache"] == "MISS"
    assert [request.tenant for request in house.engine.requests] == ["a", "b"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_failed_is_not_stored(house: House, stream: bool) -> None:
    house.engine.script = broken_stream(*([chunk("Hel")] if stream else []))
    await house.send(house.chat(stream=stream))
    house.engine.script = house.engine.words
    assert (await house.send(house.chat())).headers["x-cache"] == "MISS"


# The client goes.


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_aborts_the_engine_and_settles(house: House, stream: bool) -> None:
    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        if request.stream:
            yield chunk("Hello")
        await asyncio.Event().wait()

    house.engine.script = script
    exchange = house.begin(house.chat(stream=stream))
    await house.engine.entered.wait()
    if stream:
        await exchange.frames(1)
    assert house.engine.running == 1
    exchange.leave()
    await exchange.end()
    assert house.settled()
    assert house.count("wattgate_requests_total", status="499") == 1
    assert house.count("wattgate_requests_total") == 1
    await house.meter.flush()
    (batch,) = house.books.batches
    assert batch.finished == (house.engine.requests[0].request_id,)
    assert sum(record.prefill_tokens for record in batch.records) == 3


async def test_a_client_that_goes_while_it_waits_leaves_the_queue(new_house: NewHouse) -> None:
    house = new_house(cap=1)
    house.engine.gate.clear()
    running = house.begin(house.chat("one"))
    await house.engine.entered.wait()
    waiting = house.begin(house.chat("two"))
    await until(lambda: house.cap.waiting == 1)
    waiting.leave()
    await waiting.end()
    assert (house.cap.waiting, house.cap.running) == (0, 1)
    assert waiting.messages == []
    house.engine.gate.set()
    assert (await running.end()).status == 200
    assert len(house.engine.requests) == 1


async def test_a_client_that_goes_while_a_frame_is_being_sent_aborts_the_engine(house: House) -> None:
    closed = asyncio.Event()

    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        try:
            while True:
                yield chunk("more")
        finally:
            closed.set()

    house.engine.script = script
    exchange = house.begin(house.chat(stream=True), send_blocks_after=2)
    await exchange.frames(1)
    exchange.leave()
    await exchange.end()
    assert house.settled()
    assert house.count("wattgate_requests_total", status="499") == 1


@pytest.mark.parametrize("error_comes", [False, True])
async def test_a_client_that_reads_nothing_is_cut_and_its_slot_is_free(error_comes: bool) -> None:
    house = House(slow_reader_seconds=0.01)

    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        while True:
            yield chunk("more")

    house.engine.script = script
    # with a deadline before it, the error's own frame finds the way blocked too
    deadline = {"x_request_timeout": "0.005"} if error_comes else {}
    exchange = house.begin(house.chat(stream=True), send_blocks_after=2, **deadline)
    await exchange.end()
    assert house.settled()
    assert not exchange.done
    assert house.count("wattgate_requests_total", status="499") == (0 if error_comes else 1)


# Deadlines.


async def test_a_deadline_before_the_answer_is_504(house: House) -> None:
    house.engine.gate.clear()
    for stream in (False, True):
        reply = await house.send(house.chat(stream=stream), x_request_timeout="1")
        assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
    assert house.count("wattgate_requests_total", status="504") == 2


async def test_a_deadline_in_mid_stream_is_an_error_frame_without_done(house: House) -> None:
    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        yield chunk("Hello")
        await asyncio.Event().wait()

    house.engine.script = script
    reply = await house.send(house.chat(stream=True), x_request_timeout="1")
    assert reply.status == 200
    assert not reply.done
    assert reply.chunks[-1]["error"]["code"] == "deadline_exceeded"
    assert house.count("wattgate_requests_total", status="504") == 1


async def test_a_deadline_while_waiting_is_504(new_house: NewHouse) -> None:
    house = new_house(cap=1)
    house.engine.gate.clear()
    running = house.begin(house.chat("one"))
    await house.engine.entered.wait()
    for stream in (False, True):
        for cached in ({}, {"cache_control": "no-store"}):
            reply = await house.send(house.chat("two", stream=stream), x_request_timeout="0.01", **cached)
            assert (reply.status, reply.error["code"]) == (504, "deadline_before_run")
    assert house.count("wattgate_admission_refusals_total", reason="deadline_before_run", model="m") == 4
    house.engine.gate.set()
    await running.end()


@pytest.mark.parametrize("sent", ["0", "-1", "nan", "inf", "soon", ""])
async def test_a_timeout_that_is_none_is_refused(house: House, sent: str) -> None:
    reply = await house.send(house.chat(), x_request_timeout=sent)
    assert (reply.status, reply.error["param"]) == (400, "x-request-timeout")


# The engine fails.


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (EngineUnavailable("The engine is dead."), 503),
        (EngineRefused(400, {"error": {"message": "bad grammar", "param": "tools"}}), 400),
        (RuntimeError("secret/path.py"), 500),
    ],
)
async def test_an_error_before_the_first_byte_has_its_status_and_no_internals(
    house: House, stream: bool, refusal: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "wattgate")
    house.engine.refuse = refusal
    reply = await house.send(house.chat(stream=stream))
    assert reply.status == status
    assert "secret" not in reply.error["message"]
    assert house.count("wattgate_requests_total", status=str(status)) == 1
    assert house.count("wattgate_objective_requests_total", model="m", kept="no" if status >= 500 else "yes") == 1
    assert house.count("wattgate_objective_requests_total") == 1


@pytest.mark.parametrize("error", [EngineUnavailable("died"), RuntimeError("secret"), ConnectionResetError(), None])
async def test_an_error_in_mid_stream_is_a_frame_without_done(
    house: House, error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "wattgate")

    async def ends_early(request: EngineRequest) -> AsyncIterator[bytes]:
        yield chunk("Hel")

    house.engine.script = broken_stream(chunk("Hel"), error=error) if error else ends_early
    house.engine.now = EngineStatus(ready=not isinstance(error, EngineUnavailable), fatal=bool(error))
    reply = await house.send(house.chat(stream=True))
    assert reply.status == 200
    assert not reply.done
    assert text_of(reply.chunks[:-1]) == "Hel"
    assert reply.chunks[-1]["error"]["type"] == "server_error"
    assert "secret" not in reply.body.decode()


async def test_an_error_frame_of_the_engine_is_passed_on_only_where_it_is_about_the_request(house: House) -> None:
    for code, kept in ((400, True), (500, False)):
        frame = b'data: {"error":{"message":"what it said","type":"x","code":%d}}\n\n' % code

        async def script(request: EngineRequest, frame: bytes = frame) -> AsyncIterator[bytes]:
            yield chunk("Hel")
            yield frame
            yield b"data: [DONE]\n\n"

        house.engine.script = script
        reply = await house.send(house.chat(stream=True))
        assert not reply.done
        assert ("what it said" in reply.chunks[-1]["error"]["message"]) is kept


async def test_a_unary_answer_that_broke_off_is_an_error(house: House) -> None:
    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        yield b'{"choices": ['

    house.engine.script = script
    assert (await house.send(house.chat())).status == 503


# Refusals.


async def test_an_unknown_model_is_named_with_those_there_are(house: House) -> None:
    reply = await house.send(house.chat() | {"model": "gpt-4"})
    assert (reply.status, reply.error["param"], reply.error["code"]) == (404, "model", "model_not_found")
    assert "gpt-4" in reply.error["message"]
    assert "Served: m." in reply.error["message"]
    # what a client writes never becomes a label
    assert house.count("wattgate_requests_total", model="unknown", status="404") == 1
    assert house.count("wattgate_requests_total", model="gpt-4") == 0


async def test_an_answer_longer_than_the_context_is_refused_before_anything_is_spent(house: House) -> None:
    reply = await house.send(house.chat(max_tokens=1001))
    assert (reply.status, reply.error["param"]) == (400, "max_tokens")
    assert house.engine.requests == []


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Basic key-a", 401),
        ("Bearer ", 401),
        ("Bearer key-a", 200),
        ("bearer key-a", 200),
    ],
)
async def test_keys(new_house: NewHouse, header: str | None, status: int) -> None:
    house = new_house(keys={"a": "key-a"})
    reply = await house.send(house.chat(), **({"authorization": header} if header else {}))
    assert reply.status == status
    for path in ("/v1/models", "/v1/models/m", "/metrics"):
        assert (await house.get(path, **({"authorization": header} if header else {}))).status == status
    assert (await house.get("/healthz")).status == 200


async def test_a_full_queue_is_429_with_a_computed_retry_after(new_house: NewHouse) -> None:
    house = new_house(cap=1, queue=1)
    house.engine.gate.clear()
    exchanges = [house.begin(house.chat("0"))]
    await house.engine.entered.wait()
    exchanges.append(house.begin(house.chat("1")))
    await until(lambda: house.cap.waiting == 1)
    reply = await house.send(house.chat("2"))
    assert (reply.status, reply.error["code"], reply.error["type"]) == (429, "queue_full", "rate_limit_error")
    assert int(reply.headers["retry-after"]) >= 1
    refusals = "wattgate_admission_refusals_total"
    assert house.count(refusals, model="m", priority="standard", reason="queue_full") == house.count(refusals) == 1
    house.engine.gate.set()
    for exchange in exchanges:
        assert (await exchange.end()).status == 200


async def test_more_requests_than_the_gateway_takes_are_429(new_house: NewHouse) -> None:
    house = new_house(cap=8, max_concurrent_requests=2)
    house.engine.gate.clear()
    exchanges = [house.begin(house.chat(str(number))) for number in range(2)]
    await until(lambda: house.engine.running == 2)
    for raw in (orjson.dumps(house.chat("3")), [b"x" * 60_000, b"x" * 60_000]):
        reply = await house.send(raw=raw)
        assert (reply.status, reply.error["code"]) == (429, "too_many_requests")
    assert house.count("wattgate_admission_refusals_total", reason="too_many_requests") == 2
    assert int(reply.headers["retry-after"]) >= 1
    house.engine.gate.set()
    for exchange in exchanges:
        await exchange.end()
    assert (await house.send(house.chat("4"))).status == 200


# Accounts.


async def test_each_exit_is_counted_once(house: House) -> None:
    await house.send(house.chat("1"))
    await house.send(house.chat("1"))
    await house.send(house.chat("2", stream=True))
    house.engine.refuse = EngineUnavailable("no")
    await house.send(house.chat("3"))
    assert house.count("wattgate_requests_total") == 4
    assert house.count("wattgate_requests_total", status="200") == 3
    assert house.count("wattgate_requests_total", cache="HIT-EXACT") == 1
    assert house.count("wattgate_request_seconds_count") == 4
    assert house.count("wattgate_tokens_total", kind="output") == 4
    assert house.count("wattgate_tokens_total", kind="prompt") == 6


async def test_requests_turned_away_at_the_door_are_counted_under_no_model_and_no_tenant(new_house: NewHouse) -> None:
    house = new_house(keys={"a": "key-a"})
    await house.send(house.chat())
    await house.send(raw=b"{", authorization="Bearer key-a")
    await house.send(raw=b"x" * 100_000, authorization="Bearer key-a")
    for status in ("401", "400", "413"):
        labels = {"status": status, "model": "unknown", "tenant": "unknown", "endpoint": "chat/completions"}
        assert house.count("wattgate_requests_total", **labels) == 1
    assert house.count("wattgate_requests_total") == 3


async def test_every_run_ends_in_the_books_once(house: House) -> None:
    await house.send(house.chat("1"))
    await house.send(house.chat("2", stream=True))
    house.engine.script = broken_stream(chunk("x"))
    await house.send(house.chat("3", stream=True))
    await house.meter.flush()
    (batch,) = house.books.batches
    assert sorted(batch.finished) == sorted(request.request_id for request in house.engine.requests)
    assert len(batch.records) == 3
