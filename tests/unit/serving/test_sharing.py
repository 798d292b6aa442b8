"""Identical requests at the same time: one run of the engine, everyone's own deadline and receipt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from serving.access import KeyRing
from serving.engines.base import EngineRequest
from serving.errors import EngineRefused, RateLimited
from serving.tenancy.tenant import Priority, TenantSettings
from tests.unit.serving.conftest import House
from tests.unit.serving.engines.contract import until
from tests.unit.serving.fakes import answer_frames, chunk

NewHouse = Callable[..., House]
KEY = {"authorization": "Bearer key"}


def _of_any_class() -> KeyRing:
    return KeyRing({"t": "key"}, tenants={"t": TenantSettings(priority=Priority.INTERACTIVE)})


def _said(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for each in chunks for choice in each["choices"])


async def test_a_hundred_identical_requests_run_once(new_house: NewHouse) -> None:
    house = new_house(max_concurrent_requests=200)
    house.engine.gate.clear()
    exchanges = [house.begin(house.chat(stream=number % 2 == 1)) for number in range(100)]
    await until(lambda: house.count("wattgate_cache_lookups_total") == 100)
    house.engine.gate.set()
    replies = [await exchange.end() for exchange in exchanges]
    assert len(house.engine.requests) == 1
    assert [reply.status for reply in replies] == [200] * 100
    receipts = [reply.json["usage"]["wattgate"] for reply in replies[::2]]
    receipts += [reply.chunks[-1]["usage"]["wattgate"] for reply in replies[1::2]]
    assert sorted(receipt["cache"] for receipt in receipts) == ["HIT-EXACT"] * 99 + ["MISS"]
    assert len({receipt["receipt_id"] for receipt in receipts}) == 100
    assert all(receipt["notes"] for receipt in receipts if receipt["cache"] == "HIT-EXACT")
    assert all(_said(reply.chunks) == "Hello there" and reply.done for reply in replies[1::2])
    assert house.count("wattgate_cache_shared_total", reason="flight") == 99
    # the books: one request's work, its tokens once
    assert house.count("wattgate_tokens_total", kind="output") == 2
    assert house.count("wattgate_tokens_total", kind="avoided") == 99 * 5
    await house.meter.flush()
    assert {record.request_id for record in house.books.batches[0].records} == {house.engine.requests[0].request_id}


async def test_a_follower_of_a_stream_reads_along(house: House) -> None:
    step = asyncio.Event()

    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        for number, frame in enumerate(answer_frames(request)):
            if number == 1:
                await step.wait()
            yield frame

    house.engine.script = script
    leader = house.begin(house.chat(stream=True))
    await leader.frames(1)
    follower = house.begin(house.chat(stream=True))
    assert b"Hello" in (await follower.frames(1))[0]
    assert follower.headers["x-cache"] == "HIT-EXACT"
    step.set()
    assert _said((await follower.end()).chunks) == _said((await leader.end()).chunks) == "Hello there"


async def test_a_leader_that_goes_leaves_the_run_to_the_others(house: House) -> None:
    house.engine.gate.clear()
    leader, follower = house.begin(house.chat()), house.begin(house.chat())
    await until(lambda: house.count("wattgate_cache_lookups_total") == 2)
    leader.leave()
    await leader.end()
    assert house.engine.running == 1
    house.engine.gate.set()
    assert (await follower.end()).json["choices"][0]["message"]["content"] == "Hello there"
    assert len(house.engine.requests) == 1


async def test_the_last_who_goes_aborts_the_run(house: House) -> None:
    house.engine.gate.clear()
    exchanges = [house.begin(house.chat()) for _ in range(3)]
    await until(lambda: house.count("wattgate_cache_lookups_total") == 3 and house.engine.running == 1)
    for exchange in exchanges:
        exchange.leave()
        await exchange.end()
    assert house.engine.running == 0


async def test_a_follower_keeps_its_own_deadline(house: House) -> None:
    house.engine.gate.clear()
    leader = house.begin(house.chat())
    await house.engine.entered.wait()
    follower = await house.send(house.chat(), x_request_timeout="0.01")
    assert follower.status == 504
    house.engine.gate.set()
    assert (await leader.end()).status == 200


async def test_the_leaders_deadline_in_the_queue_is_not_the_followers(new_house: NewHouse) -> None:
    house = new_house(cap=1)
    house.engine.gate.clear()
    running = house.begin(house.chat("something else"))
    await house.engine.entered.wait()
    leader = house.begin(house.chat(), x_request_timeout="0.05")
    follower = house.begin(house.chat())
    assert (await leader.end()).status == 504
    house.engine.gate.set()
    assert (await follower.end()).status == 200
    await running.end()


@pytest.mark.parametrize(
    ("code", "follower_class", "status"),
    [
        ("deadline_unmeetable", "batch", 200),
        ("queue_full", "interactive", 200),
        ("queue_full", "batch", 429),
        ("engine_overloaded", "interactive", 429),
    ],
)
async def test_a_refusal_for_the_leaders_deadline_or_class_is_not_the_followers(
    new_house: NewHouse, code: str, follower_class: str, status: int
) -> None:
    house = new_house(keys=_of_any_class())
    refuse = asyncio.Event()

    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        if request is house.engine.requests[0]:
            await refuse.wait()
            raise RateLimited("Not you.", code=code)
        for frame in answer_frames(request):
            yield frame

    house.engine.script = script
    leader = house.begin(house.chat(), **KEY, x_wattgate_priority="batch")
    await house.engine.entered.wait()
    follower = house.begin(house.chat(), **KEY, x_wattgate_priority=follower_class)
    await until(lambda: house.count("wattgate_cache_lookups_total") == 2)
    refuse.set()
    assert (await leader.end()).status == 429
    assert (await follower.end()).status == status
    assert len(house.engine.requests) == (2 if status == 200 else 1)


async def test_a_more_urgent_request_does_not_wait_in_the_line_of_a_less_urgent_run(new_house: NewHouse) -> None:
    house = new_house(cap=1, keys=_of_any_class())
    house.engine.gate.clear()
    first = house.begin(house.chat("first"), **KEY)
    await house.engine.entered.wait()
    slow = house.begin(house.chat(), **KEY, x_wattgate_priority="batch")
    await until(lambda: house.cap.waiting == 1)
    other = house.begin(house.chat("other"), **KEY, x_wattgate_priority="standard")
    await until(lambda: house.cap.waiting == 2)
    fast = house.begin(house.chat(), **KEY, x_wattgate_priority="interactive")
    await until(lambda: house.cap.waiting == 3)
    house.engine.gate.set()
    ids = [(await exchange.end()).headers["x-request-id"] for exchange in (first, fast, other, slow)]
    assert [request.request_id for request in house.engine.requests] == ids


async def test_nor_in_that_of_another_replica(new_house: NewHouse) -> None:
    busy = new_house(cap=1, keys=_of_any_class())
    other = new_house(keys=_of_any_class(), store=busy.store)
    busy.engine.gate.clear()
    first = busy.begin(busy.chat("first"), **KEY)
    await busy.engine.entered.wait()
    slow = busy.begin(busy.chat(), **KEY, x_wattgate_priority="batch")
    await until(lambda: busy.cap.waiting == 1)
    fast = await other.send(other.chat(), **KEY, x_wattgate_priority="interactive")
    assert (fast.status, fast.headers["x-cache"]) == (200, "MISS")
    busy.engine.gate.set()
    assert [(await exchange.end()).status for exchange in (first, slow)] == [200, 200]


async def test_a_more_urgent_request_shares_a_run_that_has_begun(new_house: NewHouse) -> None:
    house = new_house(keys=_of_any_class())
    house.engine.gate.clear()
    slow = house.begin(house.chat(), **KEY, x_wattgate_priority="batch")
    await house.engine.entered.wait()
    fast = house.begin(house.chat(), **KEY, x_wattgate_priority="interactive")
    await until(lambda: house.count("wattgate_cache_lookups_total") == 2)
    house.engine.gate.set()
    assert [(await exchange.end()).headers["x-cache"] for exchange in (slow, fast)] == ["MISS", "HIT-EXACT"]
    assert len(house.engine.requests) == 1


async def test_an_error_reaches_everyone_as_it_is(house: House) -> None:
    house.engine.gate.clear()
    house.engine.refuse = EngineRefused(400, {"error": {"message": "bad grammar", "param": "tools"}})
    exchanges = [house.begin(house.chat(stream=number == 0)) for number in range(3)]
    await until(lambda: house.count("wattgate_cache_lookups_total") == 3)
    house.engine.gate.set()
    for exchange in exchanges:
        reply = await exchange.end()
        assert (reply.status, reply.error["param"]) == (400, "tools")
    assert len(house.engine.requests) == 1


async def test_a_stream_that_breaks_breaks_for_everyone(house: House) -> None:
    step = asyncio.Event()

    async def script(request: EngineRequest) -> AsyncIterator[bytes]:
        yield chunk("Hello")
        await step.wait()

    house.engine.script = script
    leader = house.begin(house.chat(stream=True))
    await leader.frames(1)
    streaming, whole = house.begin(house.chat(stream=True)), house.begin(house.chat())
    await until(lambda: house.count("wattgate_cache_lookups_total") == 3)
    step.set()
    for reply in (await leader.end(), await streaming.end()):
        assert not reply.done
        assert "error" in reply.chunks[-1]
    assert (await whole.end()).status == 503


async def test_what_may_not_be_stored_is_not_shared(house: House) -> None:
    house.engine.gate.clear()
    exchanges = [house.begin(house.chat(), cache_control="no-store") for _ in range(2)]
    await until(lambda: house.engine.running == 2)
    house.engine.gate.set()
    for exchange in exchanges:
        assert (await exchange.end()).headers["x-cache"] == "BYPASS"


async def test_tenants_never_share_a_run(new_house: NewHouse) -> None:
    house = new_house(keys={"a": "key-a", "b": "key-b"})
    house.engine.gate.clear()
    exchanges = [house.begin(house.chat(), authorization=f"Bearer key-{name}") for name in "ab"]
    await until(lambda: house.engine.running == 2)
    house.engine.gate.set()
    for exchange in exchanges:
        assert (await exchange.end()).headers["x-cache"] == "MISS"
