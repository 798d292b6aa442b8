import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from metering.errors import BadInput
from serving.tuning.http_sender import settle
from serving.tuning.lengths import Lengths
from serving.tuning.measure import Drive, GatewayAway, measure
from serving.tuning.outcome import Cost, Outcome
from serving.tuning.statistics import summarise
from serving.tuning.synthetic import Synthetic

WORKLOAD = Synthetic(6, 200.0, Lengths("fixed", 8), Lengths("fixed", 3)).workload()
RECEIPT = {"receipt_id": "r", "flops_prefill": 10, "flops_decode": 5, "energy_joules": {"total": 3.0}}


class FakeGateway:
    """Streams what a gateway streams; ``break_at`` ends a stream without its end."""

    def __init__(self, break_at=None, status=200):
        self.bodies, self._break_at, self._status = [], break_at, status
        self.app = web.Application()
        self.app.router.add_get("/v1/models", self.models)
        self.app.router.add_post("/v1/chat/completions", self.chat)
        self.app.router.add_get("/v1/receipts/{id}", self.receipt)

    async def models(self, request):
        return web.json_response({"data": [{"id": "m"}]})

    async def receipt(self, request):
        return web.json_response(RECEIPT | {"energy_joules": {"total": 4.0}, "method": "measured"})

    async def chat(self, request):
        body = await request.json()
        number = len(self.bodies)
        self.bodies.append(body)
        if self._status != 200:
            return web.json_response({"error": {}}, status=self._status)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(body["max_tokens"]):
            await response.write(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
        if number == self._break_at:
            return response
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "wattgate": RECEIPT}
        await response.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


async def drive(gateway, **changes):
    async with TestServer(gateway.app) as server:
        options = {"final_receipts": False} | changes
        return await measure(str(server.make_url("")), WORKLOAD, Drive(**options))


async def test_tokens_times_and_cost_of_streams():
    name, outcomes = await drive(FakeGateway(), clients=2)
    assert name == "m"
    figures = summarise(outcomes)
    assert figures["completed"] == 6
    assert figures["output_tokens"] == 18
    assert figures["joules"] == 18.0
    assert figures["ttft_p50_seconds"] > 0
    assert all(len(one.token_gaps_seconds) == 2 for one in outcomes)


async def test_final_receipts_replace_provisional_ones(monkeypatch):
    monkeypatch.setattr("serving.tuning.measure.SETTLE_SECONDS", 0.0)
    _, outcomes = await drive(FakeGateway(), final_receipts=True)
    assert summarise(outcomes)["joules"] == 24.0


async def test_receipts_are_fetched_so_many_at_once_and_told_apart_by_their_status():
    fetched = {"now": 0, "most": 0}
    release = asyncio.Event()

    async def receipt(request):
        fetched["now"] += 1
        fetched["most"] = max(fetched["most"], fetched["now"])
        if fetched["now"] == 3:
            release.set()
        await release.wait()
        fetched["now"] -= 1
        if request.match_info["id"] == "4":
            return web.json_response({}, status=404)
        return web.json_response({"receipt_id": request.match_info["id"], "status": "final", "method": "measured"})

    app = web.Application()
    app.router.add_get("/v1/receipts/{id}", receipt)
    outcomes = [
        Outcome(0.0, 0.0, float(i), cost=Cost(receipt_id=str(i), status="provisional", cache="MISS")) for i in range(9)
    ]
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        settled = await settle(session, str(server.make_url("")).rstrip("/"), outcomes, at_once=3)
    assert [one.ended_seconds for one in settled] == [float(i) for i in range(9)]
    assert [i for i, one in enumerate(settled) if one.cost.status == "provisional"] == [4]
    assert {one.cost.cache for one in settled} == {"MISS"}
    assert fetched["most"] == 3


async def test_a_stream_without_its_end_is_an_error():
    _, outcomes = await drive(FakeGateway(break_at=2))
    assert [one.error for one in outcomes if one.error] == ["the stream broke off"]


async def test_refusals_are_counted_by_status():
    _, outcomes = await drive(FakeGateway(status=429))
    assert summarise(outcomes)["errors"] == {"HTTP 429": 6}


async def test_warm_up_is_sent_first_with_other_prompts_and_not_counted():
    gateway = FakeGateway()
    _, outcomes = await drive(gateway, warm_up_requests=2)
    texts = [body["messages"][0]["content"] for body in gateway.bodies]
    assert len(outcomes) == 6
    assert len(texts) == 8
    assert len(set(texts)) == 8


async def test_nobody_at_the_address_is_said_so():
    with pytest.raises(GatewayAway, match="no gateway answers"):
        await measure("http://127.0.0.1:9", WORKLOAD, Drive())


async def test_a_model_that_is_not_served_is_refused_by_name():
    async with TestServer(FakeGateway().app) as server:
        with pytest.raises(BadInput, match=r"'other'.* it has m"):
            await measure(str(server.make_url("")), WORKLOAD, Drive(), model="other")
