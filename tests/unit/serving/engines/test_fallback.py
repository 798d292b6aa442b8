from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from serving.admission.queue import AdmissionQueue
from serving.engines.base import EngineRequest, EngineStatus
from serving.engines.fallback import FallbackEngine
from serving.errors import DeadlineExceeded, EngineRefused, EngineUnavailable
from serving.tenancy.tenant import Priority
from tests.unit.serving.conftest import House
from tests.unit.serving.engines.contract import EngineKit
from tests.unit.serving.fakes import HeldEngine, broken_stream, chunk

AWAY = EngineStatus(ready=False, reason="dead")


class Pair:
    def __init__(self, queue: AdmissionQueue | None = None) -> None:
        self.main, self.spare = HeldEngine("m"), HeldEngine("spare")
        self.engine = FallbackEngine(self.main, self.spare, "spare", queue=queue)
        self.kit = EngineKit(self.engine, "m")

    async def marks(self, **fields: Any) -> tuple[str | None, list[bytes]]:
        async with self.engine.run(self.kit.request(self.kit.chat(**fields)), lambda _: None) as answer:
            return answer.fallback, [frame async for frame in answer.frames]


async def test_a_main_engine_that_is_there_answers() -> None:
    pair = Pair()
    assert (await pair.marks())[0] is None
    assert pair.spare.requests == []


async def test_an_engine_that_is_known_to_be_away_is_not_asked() -> None:
    pair = Pair()
    pair.main.now = AWAY
    fallback, (body,) = await pair.marks()
    assert fallback == "spare"
    assert b'"model":"spare"' in body
    assert pair.main.requests == []
    (asked,) = pair.spare.requests
    assert (asked.model, asked.payload["model"]) == ("spare", "spare")


async def test_one_that_turns_out_to_be_away_is_replaced_before_a_byte_has_left() -> None:
    pair = Pair()
    pair.main.refuse = EngineUnavailable("lost")
    assert (await pair.marks())[0] == "spare"
    assert (len(pair.main.requests), len(pair.spare.requests), pair.main.running) == (1, 1, 0)


async def test_what_is_wrong_with_the_request_is_not_asked_twice() -> None:
    pair = Pair()
    pair.main.refuse = EngineRefused(400, {"error": {"message": "too long"}})
    with pytest.raises(EngineRefused):
        await pair.marks()
    assert pair.spare.requests == []


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    pair = Pair()
    pair.main.script = broken_stream(chunk("Hel"))
    with pytest.raises(EngineUnavailable):
        await pair.marks(stream=True)
    assert pair.spare.requests == []


async def test_with_both_away_the_main_engines_reason_is_told() -> None:
    pair = Pair()
    pair.main.refuse, pair.spare.now = EngineUnavailable("the main one's reason"), AWAY
    with pytest.raises(EngineUnavailable, match="the main one's reason"):
        await pair.marks()


def test_it_is_ready_while_either_is() -> None:
    pair = Pair()
    pair.main.now = AWAY
    assert pair.engine.status().ready
    assert not pair.engine.main_status().ready
    pair.spare.now = AWAY
    assert not pair.engine.status().ready


async def test_a_shared_spare_is_asked_through_its_own_queue() -> None:
    queue = AdmissionQueue(1)
    pair = Pair(queue)
    pair.main.now = AWAY
    async with queue.permit():
        waiting = asyncio.create_task(pair.marks())
        while not queue.waiting:  # noqa: ASYNC110 - a loop's turn each
            await asyncio.sleep(0)
        assert pair.spare.requests == []
    assert (await waiting)[0] == "spare"
    assert queue.running == 0


async def test_a_request_waits_for_the_spare_as_what_it_is() -> None:
    queue = AdmissionQueue(1)
    pair = Pair(queue)
    pair.main.now = AWAY
    deadline = time.monotonic() + 3600.0
    asked = replace(
        pair.kit.request(pair.kit.chat()), priority=Priority.BATCH, deadline_seconds=deadline, prompt_tokens=7
    )

    async def run(request: EngineRequest) -> None:
        async with pair.engine.run(request, lambda _: None) as answer:
            assert [frame async for frame in answer.frames]

    async with queue.permit():
        waiting = asyncio.create_task(run(asked))
        while not queue.waiting:  # noqa: ASYNC110 - a loop's turn each
            await asyncio.sleep(0)
        assert (queue.waiting_of(Priority.BATCH), queue.queued_prefill_tokens) == (1, 7)
        with pytest.raises(DeadlineExceeded):
            await run(replace(asked, deadline_seconds=deadline - 7200.0))
    await waiting


class TestInTheGateway:
    async def test_the_calls_class_deadline_and_length_go_with_it(self) -> None:
        house = House(engine=HeldEngine())
        await house.send(house.chat("x" * 400), x_wattgate_priority="batch")
        (asked,) = house.engine.requests
        assert asked.priority is Priority.BATCH
        assert asked.deadline_seconds is not None
        assert asked.prompt_tokens >= 100

    @pytest.fixture
    def pair(self) -> Pair:
        pair = Pair()
        pair.main.now = AWAY
        return pair

    async def test_answers_are_marked_in_header_and_receipt_and_counted(self, pair: Pair) -> None:
        house = House(engine=pair.engine)
        for stream in (False, True):
            reply = await house.send(house.chat(f"Hi {stream}", stream=stream))
            assert reply.status == 200
            assert reply.headers["x-wattgate-fallback"] == "spare"
            usage = reply.chunks[-1]["usage"] if stream else reply.json["usage"]
            assert any("spare" in note for note in usage["wattgate"]["notes"])
        labels = {"model": "m", "fallback": "spare"}
        assert house.registry.get_sample_value("wattgate_fallback_total", labels) == 2

    async def test_they_are_not_kept_as_the_models_own(self, pair: Pair) -> None:
        house = House(engine=pair.engine)
        ask = house.chat("The same", temperature=0)
        assert [(await house.send(ask)).headers["x-cache"] for _ in range(2)] == ["MISS", "MISS"]
        pair.main.now = EngineStatus(ready=True)
        fresh = await house.send(ask)
        assert (fresh.headers["x-cache"], "x-wattgate-fallback" in fresh.headers) == ("MISS", False)
        assert (await house.send(ask)).headers["x-cache"] == "HIT-EXACT"
