from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import uvicorn
from pydantic import SecretStr

from metering.work import Method
from serving.api.engine_app import EngineApp
from serving.engines.base import Engine, EngineModel, EngineRequest, EngineStatus
from serving.engines.separate import SeparateEngine
from serving.engines.settings import EngineSettings, SimulatedSettings
from serving.engines.simulated import SIMULATED_CONFIG, SimulatedEngine
from serving.errors import EngineUnavailable
from serving.meter_link import MeterLink
from tests.unit.serving.engines.contract import (
    CHAT,
    PATIENCE_SECONDS,
    EngineContract,
    EngineEndContract,
    EngineKit,
    until,
)
from tests.unit.serving.fakes import Books, HeldEngine, broken_stream, chunk
from tests.unit.serving.response_events import events
from tests.unit.serving.response_events import frame as event_frame

TOKEN = SecretStr("internal")
SELDOM = 3600.0
_runs = itertools.count()
FAST = EngineSettings(
    kind="simulated",
    served_model_name="apart",
    simulated=SimulatedSettings(prefill_seconds_per_token=0.0, step_seconds=0.0005, step_seconds_per_sequence=0.0),
)


class Apart:
    """A replica with an engine of its own, and the gateway's end of the line to it."""

    def __init__(self, engine: Engine) -> None:
        self.inner = engine
        self.books = Books()
        self.meter = MeterLink("model", self.books, flush_seconds=SELDOM, on_fault=lambda _: None)
        self.app = EngineApp(engine, self.meter, TOKEN, max_body_bytes=1024 * 1024)
        self.url = ""

    @contextlib.asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[str]:
        config = uvicorn.Config(self.app, host="127.0.0.1", port=port, lifespan="off", log_level="error")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            await task

    def engine(self, url: str, *names: str, probe_seconds: float = SELDOM) -> SeparateEngine:
        return SeparateEngine(FAST, names or ("apart",), url=url, token=TOKEN, probe_seconds=probe_seconds)


@contextlib.asynccontextmanager
async def joined(inner: Engine, *names: str) -> AsyncIterator[tuple[Apart, SeparateEngine]]:
    """Both ends, while the line between them is open."""
    apart = Apart(inner)
    async with apart.served() as url:
        engine = apart.engine(url, *names)
        await engine.start()
        try:
            yield apart, engine
        finally:
            await engine.close()


@pytest.fixture
async def simulated() -> SimulatedEngine:
    engine = SimulatedEngine(FAST, lambda _: None)
    await engine.start()
    return engine


class TestBeforeAReplica(EngineContract, EngineEndContract):
    @pytest.fixture
    async def kit(self, simulated: SimulatedEngine) -> AsyncIterator[EngineKit]:
        async with joined(simulated) as (apart, engine):
            yield EngineKit(_Told(engine, apart), "apart", too_long_param="messages")
        await until(lambda: simulated.status().running == 0)


class _Told:
    """The engine, with the work that its replica booked handed to where the contract looks for it."""

    def __init__(self, engine: SeparateEngine, apart: Apart) -> None:
        self._engine = engine
        self._apart = apart

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @contextlib.asynccontextmanager
    async def run(self, request: Any, work: Any) -> AsyncIterator[Any]:
        books = self._apart.books
        # two requests may have one id: here they are told apart
        own = replace(request, request_id=f"{request.request_id}-{next(_runs)}")
        try:
            async with self._engine.run(own, _refused) as answer:
                yield answer
        finally:
            if self._engine.status().ready:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while not any(own.request_id in batch.finished for batch in books.batches):
                        await self._apart.meter.flush()
                        await asyncio.sleep(0)
            for batch in books.batches:
                for record in batch.records:
                    if record.request_id == own.request_id:
                        work(replace(record, request_id=request.request_id))


def _refused(record: Any) -> None:
    raise AssertionError("the gateway books nothing of a model in a replica of its own")


@pytest.fixture
async def held() -> AsyncIterator[tuple[Apart, SeparateEngine]]:
    async with joined(HeldEngine("apart")) as both:
        yield both


async def test_the_replica_books_the_work_under_the_gateways_id_and_tenant(simulated: SimulatedEngine) -> None:
    async with joined(simulated) as (apart, engine):
        kit = EngineKit(engine, "apart")
        request = kit.request(kit.chat(), tenant="acme")
        async with engine.run(request, _refused) as answer:
            (body,) = [frame async for frame in answer.frames]
            told = answer.elsewhere
        await apart.meter.flush()
    (batch,) = apart.books.batches
    assert {(record.request_id, record.tenant) for record in batch.records} == {(request.request_id, "acme")}
    assert batch.finished == (request.request_id,)
    assert told is not None
    assert told.receipt is not None
    assert told.receipt.receipt_id == request.request_id
    assert b"wattgate_receipt" not in body


@pytest.mark.parametrize("stream", [False, True])
async def test_the_receipt_comes_with_the_answer_and_is_no_part_of_it(
    held: tuple[Apart, SeparateEngine], stream: bool
) -> None:
    _, engine = held
    kit = EngineKit(engine, "apart")
    payload = kit.chat() | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})
    async with engine.run(kit.request(payload), _refused) as answer:
        frames = [frame async for frame in answer.frames]
        assert answer.elsewhere is not None
        assert answer.elsewhere.receipt is not None
    assert not any(b"wattgate_receipt" in frame for frame in frames)
    assert frames[-1] == b"data: [DONE]\n\n" if stream else frames[0].endswith(b"}")


async def test_a_broken_off_run_is_estimated_from_the_last_finished_one(simulated: SimulatedEngine) -> None:
    async with joined(simulated) as (_, engine):
        kit = EngineKit(engine, "apart")
        for broken in (False, True):
            payload = kit.chat(max_tokens=500, ignore_eos=True, stream=True)
            async with engine.run(kit.request(payload), _refused) as answer:
                told = answer.elsewhere
                async for _ in answer.frames:
                    if broken:
                        break
            assert told is not None
            assert told.receipt is not None
            assert any("Broken off" in note for note in told.receipt.notes) == broken


async def test_nobody_without_the_token_finds_anything(held: tuple[Apart, SeparateEngine]) -> None:
    apart, _ = held
    async with apart.served() as url, aiohttp.ClientSession() as session:
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "internal"}):
            for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/readyz"), ("GET", "/")):
                async with session.request(method, url + path, json={"model": "apart"}, headers=headers) as answer:
                    assert answer.status == 404
                    assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}
    inner = apart.inner
    assert isinstance(inner, HeldEngine)
    assert inner.requests == []


async def test_a_replica_that_is_away_at_the_start_is_waited_for() -> None:
    apart = Apart(HeldEngine("apart"))
    async with apart.served() as url:
        port = int(url.rpartition(":")[2])
    engine = apart.engine(url)
    await engine.start()
    try:
        assert [model.name for model in engine.models()] == ["apart"]
        assert not engine.status().ready
        kit = EngineKit(engine, "apart")
        with pytest.raises(EngineUnavailable):
            async with engine.run(kit.request(kit.chat()), _refused):
                pass
        async with apart.served(port):
            assert (await engine.probe()).ready
            assert [model.max_context_tokens for model in engine.models()] == [1000]
            assert (await kit.ask(kit.chat()))[0]["model"] == "apart"
    finally:
        await engine.close()


async def test_the_gateway_learns_what_identifies_the_model(simulated: SimulatedEngine) -> None:
    async with joined(simulated) as (_, engine):
        (model,) = engine.models()
    assert (model.config, model.dtype, model.weight_bytes_each) == (SIMULATED_CONFIG, "bfloat16", 2.0)


async def test_adapters_keep_their_parent_and_any_configuration_can_be_told() -> None:
    inner = HeldEngine("apart")
    odd = {"id2label": {0: "no", 1: "yes"}, "dtype": Method.MEASURED, "kind": object}
    told = (EngineModel("apart", config=odd), EngineModel("tuned", parent="apart", revision="2"))
    inner.models = lambda: told  # type: ignore[method-assign]
    async with joined(inner, "apart", "tuned") as (_, engine):
        models = engine.models()
    assert [(model.name, model.parent, model.revision) for model in models] == [
        ("apart", None, None),
        ("tuned", "apart", "2"),
    ]
    assert models[0].config is not None
    assert models[0].config["id2label"] == {"0": "no", "1": "yes"}


async def test_a_dead_engine_is_told_as_unavailable(held: tuple[Apart, SeparateEngine]) -> None:
    apart, engine = held
    inner = apart.inner
    assert isinstance(inner, HeldEngine)
    inner.refuse = EngineUnavailable("dead")
    kit = EngineKit(engine, "apart")
    with pytest.raises(EngineUnavailable):
        async with engine.run(kit.request(kit.chat()), _refused):
            pass
    inner.now = EngineStatus(ready=False, reason="the engine core has died", fatal=True)
    assert not (await engine.probe()).ready


async def test_a_stream_that_breaks_off_in_the_replica_breaks_off_in_the_gateway(
    held: tuple[Apart, SeparateEngine],
) -> None:
    apart, engine = held
    inner = apart.inner
    assert isinstance(inner, HeldEngine)
    inner.script = broken_stream(chunk("Hello"))
    kit = EngineKit(engine, "apart")
    async with engine.run(kit.request(kit.chat(stream=True)), _refused) as answer:
        frames = [frame async for frame in answer.frames]
    assert b"Hello" in frames[0]
    assert frames[-1].startswith(b'data: {"error"')


async def test_a_response_is_relayed_with_its_receipt_before_its_last_event(held: tuple[Apart, SeparateEngine]) -> None:
    apart, engine = held
    assert isinstance(apart.inner, HeldEngine)

    async def respond(request: EngineRequest) -> AsyncIterator[bytes]:
        for event in events(model="apart"):
            yield event_frame(event)

    apart.inner.script = respond
    asked = EngineRequest("r", "/v1/responses", {"model": "apart", "input": "Hi", "stream": True}, "apart", "t")
    async with engine.run(asked, _refused) as answer:
        frames = [frame async for frame in answer.frames]
        assert answer.elsewhere is not None
        assert answer.elsewhere.receipt is not None
        assert answer.elsewhere.receipt.receipt_id == "r"
    assert frames == [event_frame(event) for event in events(model="apart")]
