"""An upstream's Responses API, relayed: events as they come, work from the usage in the last one."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from metering.work import WorkRecord
from serving.engines.base import EngineRequest
from serving.engines.settings import EngineSettings, UpstreamSettings
from serving.engines.upstream import UpstreamEngine
from serving.errors import EngineUnavailable
from tests.unit.serving.openai_server import FakeOpenAI, serving
from tests.unit.serving.response_events import events, frame, response


async def run(payload: dict[str, Any], *, cut: bool = False) -> tuple[bytes, list[WorkRecord]]:
    fake = FakeOpenAI("own-name")

    async def respond(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        assert asked["model"] == "own-name"
        if not asked.get("stream"):
            return web.json_response(response(model="own-name"))
        out = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await out.prepare(request)
        for event in events(model="own-name")[: 3 if cut else None]:
            await out.write(frame(event))
        await out.write_eof()
        return out

    fake.app.router.add_post("/v1/responses", respond)
    work: list[WorkRecord] = []
    async with serving(fake.app) as url:
        settings = EngineSettings(
            kind="upstream", model="own-name", served_model_name="ours", upstream=UpstreamSettings(url=url)
        )
        engine = UpstreamEngine(settings, lambda _: None, probe_seconds=3600.0)
        await engine.start()
        asked = EngineRequest("r", "/v1/responses", {"model": "ours", "input": "Hi"} | payload, "ours", "t")
        try:
            async with engine.run(asked, work.append) as answer:
                body = b"".join([each async for each in answer.frames])
        finally:
            await engine.close()
    return body, work


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_relayed_under_our_name_and_its_usage_is_its_work(stream: bool) -> None:
    body, work = await run({"stream": stream})
    assert b"own-name" not in body
    if stream:
        assert body == b"".join(frame(event) for event in events(model="ours"))
    assert sum(record.prefill_tokens for record in work) == 2
    assert sum(record.cached_tokens for record in work) == 1
    assert sum(record.decode_tokens for record in work) == 2


async def test_a_stream_without_its_last_event_is_broken_off() -> None:
    with pytest.raises(EngineUnavailable):
        await run({"stream": True}, cut=True)
