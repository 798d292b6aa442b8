import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from serving.tuning.lengths import Lengths
from serving.tuning.measure import Drive, measure
from serving.tuning.synthetic import Synthetic
from serving.tuning.utilisation import UtilisationWatch, gauges

WORKLOAD = Synthetic(2, 200.0, Lengths("fixed", 8), Lengths("fixed", 3)).workload()
EXPOSITION = """
# TYPE wattgate_mfu_ratio gauge
wattgate_mfu_ratio{{model="m"}} {mfu}
wattgate_mfu_ratio{{model="other"}} 0.9
# TYPE wattgate_mbu_ratio gauge
wattgate_mbu_ratio{{model="m"}} 0.6
"""


class FakeGateway:
    """Answers no request before it was asked for its figures twice; they need ``admin_key``."""

    def __init__(self, admin_key="admin", scrapes=2):
        self._admin_key, self._left = admin_key, scrapes
        self._scraped = asyncio.Event()
        self.app = web.Application()
        self.app.router.add_get("/v1/models", self._models)
        self.app.router.add_post("/v1/chat/completions", self._chat)
        self.app.router.add_get("/metrics", self._metrics)

    async def _models(self, request):
        return web.json_response({"data": [{"id": "m"}]})

    async def _metrics(self, request):
        self._left -= 1
        refused = request.headers.get("authorization") != f"Bearer {self._admin_key}"
        if refused or self._left < 0:
            self._scraped.set()
        if refused:
            return web.json_response({"error": {}}, status=401)
        return web.Response(text=EXPOSITION.format(mfu=0.2 if self._left else 0.4))

    async def _chat(self, request):
        await self._scraped.wait()
        usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
        frames = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n' * 3
        body = frames + b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n"
        return web.Response(body=body, content_type="text/event-stream")


async def watched(gateway):
    watch = UtilisationWatch("admin", first_after_seconds=0.0, every_seconds=0.0)
    async with TestServer(gateway.app) as server:
        await measure(str(server.make_url("")), WORKLOAD, Drive(clients=2, final_receipts=False), watch=watch)
    return watch.figures()


async def test_the_figures_are_the_means_of_the_gateways_own_windows():
    figures = await watched(FakeGateway())
    assert 0.2 < figures["mfu_ratio"] < 0.4
    assert figures["mbu_ratio"] == pytest.approx(0.6)


async def test_a_gateway_that_refuses_its_figures_leaves_them_unknown():
    assert await watched(FakeGateway(admin_key="another")) == {"mfu_ratio": None, "mbu_ratio": None}


def test_only_finite_figures_of_the_model_count():
    assert gauges(EXPOSITION.format(mfu="NaN"), "m") == {"mbu_ratio": 0.6}
