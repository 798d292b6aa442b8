"""The grey zone: asked where it pays, believed where it says yes, and never in anyone's way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from cache.calibration import Calibration, Calibrator
from cache.embedders import HashEmbedder
from cache.judge import ConformalPolicy, GuardedJudge
from cache.tiers import ResponseCache
from serving.engines.base import EngineRequest
from serving.errors import EngineUnavailable
from serving.grey_zone import GreyZone
from tests.unit.serving.conftest import House
from tests.unit.serving.engines.contract import until

STORED, ASKED = "How do I reset my password?", "How do I reset the password of my account?"


class Grey:
    """A house whose threshold serves nothing, so that every likeness is grey."""

    def __init__(self, house: House, *, floor: float = 0.0, said: str = "yes", completion_tokens: int = 900) -> None:
        self.house, self.said, self.completion_tokens = house, said, completion_tokens
        cache = ResponseCache(
            secret=b"a secret of the tests",
            store=house.store,
            embedder=HashEmbedder(),
            judge=GuardedJudge(ConformalPolicy(Calibrator(Calibration((), "none", False), 0.02))),
        )
        house.gateway.cache = cache
        house.gateway._grey_zone = GreyZone(floor=floor, metrics=house.metrics)
        house.engine.script = self.script

    async def script(self, request: EngineRequest) -> AsyncIterator[bytes]:
        text = self.said if self.verifying(request) else "Press the red button."
        body = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": self.completion_tokens, "total_tokens": 0},
        }
        yield orjson.dumps(body)

    @staticmethod
    def verifying(request: EngineRequest) -> bool:
        return request.request_id.startswith("grey-")

    async def ask(self, text: str, **headers: str) -> Any:
        return await self.house.send(self.house.chat(text), **headers)

    @property
    def questions(self) -> list[EngineRequest]:
        return [request for request in self.house.engine.requests if self.verifying(request)]


async def test_a_yes_serves_the_stored_answer(house: House) -> None:
    grey = Grey(house)
    first = await grey.ask(STORED)
    second = await grey.ask(ASKED)
    assert second.headers["x-cache"] == "HIT-SEMANTIC"
    assert second.json["choices"] == first.json["choices"]
    assert len(house.engine.requests) == 2
    assert house.count("wattgate_cache_grey_zone_total", outcome="yes") == 1


async def test_the_question_is_one_constrained_token_booked_to_the_tenant(house: House) -> None:
    grey = Grey(house)
    await grey.ask(STORED)
    await grey.ask(ASKED)
    (question,) = grey.questions
    assert question.payload["max_tokens"] == 1
    assert question.payload["structured_outputs"] == {"choice": ["yes", "no"]}
    (message,) = question.payload["messages"]
    assert STORED in message["content"]
    assert ASKED in message["content"]
    await house.meter.flush()
    records = [record for batch in house.books.batches for record in batch.records]
    assert {record.tenant for record in records if record.request_id == question.request_id} == {question.tenant}
    assert question.tenant == house.engine.requests[0].tenant


@pytest.mark.parametrize("said", ["no", "No", "perhaps"])
async def test_anything_but_a_yes_runs_the_request(house: House, said: str) -> None:
    grey = Grey(house, said=said)
    await grey.ask(STORED)
    assert (await grey.ask(ASKED)).headers["x-cache"] == "MISS"
    assert len(house.engine.requests) == 3


async def test_a_short_answer_is_not_worth_a_question(house: House) -> None:
    grey = Grey(house, completion_tokens=3)
    await grey.ask(STORED)
    assert (await grey.ask(ASKED)).headers["x-cache"] == "MISS"
    assert grey.questions == []
    assert house.count("wattgate_cache_grey_zone_total", outcome="too_dear") == 1


async def test_below_the_floor_and_behind_a_guard_nobody_asks(house: House) -> None:
    grey = Grey(house, floor=1.0)
    await grey.ask(STORED)
    await grey.ask(ASKED)
    house.gateway._grey_zone = GreyZone(floor=0.0, metrics=house.metrics)
    await grey.ask("Where is order 12?")
    await grey.ask("Where is order 21?")
    assert grey.questions == []


async def test_without_a_free_slot_the_request_goes_its_way(house: House) -> None:
    grey = Grey(house)
    await grey.ask(STORED)
    house.cap.resize(1)
    house.engine.gate.clear()
    house.engine.entered.clear()
    other = house.begin(house.chat("Tell me about whales"))
    await house.engine.entered.wait()
    waiting = house.begin(house.chat(ASKED))
    await until(lambda: house.cap.waiting == 1)
    house.engine.gate.set()
    await other.end()
    assert (await waiting.end()).headers["x-cache"] == "MISS"
    assert grey.questions == []


async def test_a_model_that_fails_to_judge_is_no_fault_of_the_request(house: House) -> None:
    grey = Grey(house)
    await grey.ask(STORED)
    answer = grey.script

    async def broken(request: EngineRequest) -> AsyncIterator[bytes]:
        if grey.verifying(request):
            raise EngineUnavailable("gone")
        async for frame in answer(request):
            yield frame

    house.engine.script = broken
    reply = await grey.ask(ASKED)
    assert (reply.status, reply.headers["x-cache"]) == (200, "MISS")


async def test_who_wants_nothing_run_is_not_put_before_the_model(house: House) -> None:
    grey = Grey(house)
    await grey.ask(STORED)
    reply = await grey.ask(ASKED, cache_control="only-if-cached")
    assert reply.status == 504
    assert grey.questions == []


async def test_it_is_off_unless_configured(house: House) -> None:
    grey = Grey(house)
    house.gateway._grey_zone = None
    await grey.ask(STORED)
    await grey.ask(ASKED)
    assert grey.questions == []
