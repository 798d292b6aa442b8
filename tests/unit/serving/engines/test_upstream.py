from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from metering.work import Method, WorkRecord
from serving.engines.base import EngineStartError
from serving.engines.settings import EngineSettings, SimulatedSettings, UpstreamSettings
from serving.engines.simulated import SIMULATED_NAME, SimulatedEngine
from serving.engines.upstream import UpstreamEngine
from serving.errors import EngineRefused, EngineUnavailable, GatewayError, RateLimited
from tests.unit.serving.engines.contract import (
    DONE,
    TEXT,
    EngineContract,
    EngineEndContract,
    EngineKit,
    chunks_of,
    expected,
    text_of,
    totals,
    until,
    usage_of,
)
from tests.unit.serving.fakes import ManualClock
from tests.unit.serving.openai_server import FakeOpenAI, engine_app, frame, serving

SELDOM = 3600.0


def settings(url: str, **fields: Any) -> EngineSettings:
    upstream = UpstreamSettings(
        url=url, **{k: fields.pop(k) for k in list(fields) if k in UpstreamSettings.model_fields}
    )
    return EngineSettings(kind="upstream", upstream=upstream, **fields)


def engine_for(url: str, *, probe_seconds: float = SELDOM, **fields: Any) -> UpstreamEngine:
    return UpstreamEngine(settings(url, **fields), lambda _: None, probe_seconds=probe_seconds)


class TestBeforeAFake(EngineContract, EngineEndContract):
    @pytest.fixture
    async def kit(self) -> AsyncIterator[EngineKit]:
        fake = FakeOpenAI("fake-model")
        fake.pause_seconds = 0.0005
        async with serving(fake.app) as url:
            engine = engine_for(url)
            await engine.start()
            yield EngineKit(engine, "fake-model", too_long_param="max_tokens")
            await engine.close()
            await until(lambda: fake.running == 0)


class TestBeforeASimulatedEngine(EngineContract, EngineEndContract):
    """Under another name than the upstream's own."""

    @pytest.fixture
    async def kit(self) -> AsyncIterator[EngineKit]:
        fast = SimulatedSettings(prefill_seconds_per_token=0.0, step_seconds=0.0005, step_seconds_per_sequence=0.0)
        simulated = SimulatedEngine(EngineSettings(kind="simulated", simulated=fast), lambda _: None)
        await simulated.start()
        async with serving(engine_app(simulated)) as url:
            engine = engine_for(url + "/v1/", model=SIMULATED_NAME, served_model_name="our-name")
            await engine.start()
            yield EngineKit(engine, "our-name", too_long_param="messages")
            await engine.close()
            await until(lambda: simulated.status().running == 0)


class Rig:
    """A fake upstream, an engine before it, and a clock that only tests move."""

    def __init__(self, fake: FakeOpenAI, engine: UpstreamEngine, clock: ManualClock, url: str) -> None:
        self.fake, self.engine, self.clock, self.url = fake, engine, clock, url
        self.kit = EngineKit(engine, engine.models()[0].name)

    def streams(self, *parts: bytes, end: bool = True) -> None:
        """Answer each request with these bytes, cut as given."""

        async def answer(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            for part in parts:
                await response.write(part)
                await asyncio.sleep(0)
            if not end:
                assert request.transport is not None
                request.transport.abort()
            return response

        self.fake.answer = answer

    def refuses(self, status: int, text: str, **headers: str) -> None:
        async def answer(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
            return web.Response(status=status, text=text, headers=headers)

        self.fake.answer = answer


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    fake, clock = FakeOpenAI(), ManualClock()
    async with serving(fake.app) as url:
        engine = UpstreamEngine(settings(url), lambda _: None, probe_seconds=SELDOM, clock=clock)
        await engine.start()
        yield Rig(fake, engine, clock, url)
        await engine.close()


def token(text: str, index: int = 0, finish: str | None = None) -> bytes:
    return frame({"model": "m", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]})


def usage(prompt: int, completion: int) -> bytes:
    return frame({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


# Frames.


async def test_frames_come_whole_however_they_were_cut(rig: Rig) -> None:
    whole = token("a") + token("b\u2028") + usage(3, 2) + DONE
    rig.streams(*(whole[i : i + 7] for i in range(0, len(whole), 7)))
    frames, _ = await rig.kit.stream(rig.kit.chat())
    assert frames == [token("a"), token("b\u2028"), usage(3, 2), DONE]


async def test_line_ends_of_windows_and_keep_alives_do_not_reach_the_reader(rig: Rig) -> None:
    whole = b": ping\r\n\r\n" + (token("a") + usage(1, 1) + DONE).replace(b"\n", b"\r\n")
    rig.streams(*(whole[i : i + 3] for i in range(0, len(whole), 3)))
    frames, _ = await rig.kit.stream(rig.kit.chat())
    assert frames == [token("a"), usage(1, 1), DONE]


async def test_nothing_after_done_is_passed_on(rig: Rig) -> None:
    rig.streams(token("a") + DONE + token("late"))
    frames, _ = await rig.kit.stream(rig.kit.chat())
    assert frames == [token("a"), DONE]


# Faults.


@pytest.mark.parametrize("parts", [(token("a"), b"data: {half"), (token("a"),)])
@pytest.mark.parametrize("end", [True, False])
async def test_a_stream_that_breaks_off_raises_and_books_what_came(
    rig: Rig, parts: tuple[bytes, ...], end: bool
) -> None:
    rig.streams(*parts, end=end)
    work: list[WorkRecord] = []
    seen: list[bytes] = []
    with pytest.raises(EngineUnavailable) as broken:  # noqa: PT012
        async with rig.engine.run(rig.kit.request(rig.kit.chat(stream=True)), work.append) as answer:
            while True:
                seen.append(await anext(answer.frames))
    assert seen in ([token("a")], [])
    assert "127.0.0.1" not in broken.value.message
    assert totals(work)[0] > 0 if seen else not totals(work)[2]
    assert rig.engine.status().running == 0


async def test_an_error_frame_is_passed_on_and_ends_the_stream_without_another_error(rig: Rig) -> None:
    error = frame({"error": {"message": "bad grammar", "code": 400}})
    rig.streams(token("a"), error)
    frames, _ = await rig.kit.stream(rig.kit.chat())
    assert frames == [token("a"), error]


@pytest.mark.parametrize(
    ("status", "text"),
    [(500, "Traceback: /srv/secret.py"), (502, "<html>nginx"), (503, "{}"), (401, "sk-secret"), (403, "no"), (307, "")],
)
async def test_upstream_faults_are_unavailable_and_tell_nothing_of_the_upstream(
    rig: Rig, status: int, text: str
) -> None:
    rig.refuses(status, text, location="http://elsewhere.test/")
    with pytest.raises(EngineUnavailable) as failed:
        await rig.kit.ask(rig.kit.chat())
    assert failed.value.status == 503
    assert text == "" or text not in failed.value.message
    assert len(rig.fake.requests) == 1


async def test_what_an_upstream_repeats_of_a_key_or_a_prompt_is_not_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.refuses(401, '{"error":{"message":"Incorrect key sk-secret for: Dear diary","code":"invalid_api_key"}}')
    with pytest.raises(EngineUnavailable):
        await rig.kit.ask(rig.kit.chat())
    assert "401, invalid_api_key" in caplog.text
    assert "secret" not in caplog.text
    assert "diary" not in caplog.text


@pytest.mark.parametrize(
    ("text", "message", "param"),
    [
        (
            '{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"x"}}',
            "too long",
            "messages",
        ),
        ('{"object":"error","message":"bad","type":"BadRequestError","param":null,"code":400}', "bad", None),
        ('{"error":"plain"}', "plain", None),
        ("<html>oops</html>", "The engine refused the request.", None),
        ('{"detail":[{"loc":["/etc"]}]}', "The engine refused the request.", None),
        ("[1]", "The engine refused the request.", None),
        ('{"error":{"message":{"a":1}}}', "The engine refused the request.", None),
        ('{"error":{"message":"m","param":{"no":1},"traceback":"x"}}', "m", None),
    ],
)
async def test_refusals_carry_the_upstreams_words_and_nothing_else_of_it(
    rig: Rig, text: str, message: str, param: str | None
) -> None:
    rig.refuses(422, text)
    with pytest.raises(EngineRefused) as refused:
        await rig.kit.ask(rig.kit.chat())
    assert (refused.value.status, refused.value.message, refused.value.param) == (422, message, param)
    assert set(refused.value.envelope()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(("header", "told"), [("7", "7"), ("Wed, 21 Oct 2026 07:28:00 GMT", "1"), (None, "1")])
async def test_an_upstream_at_its_limit_is_a_rate_limit_with_its_retry_after(
    rig: Rig, header: str | None, told: str
) -> None:
    rig.refuses(429, "{}", **({"retry-after": header} if header else {}))
    with pytest.raises(RateLimited) as limited:
        await rig.kit.ask(rig.kit.chat())
    assert limited.value.headers == {"retry-after": told}


async def test_a_connection_that_the_upstream_just_closed_is_not_a_fault(rig: Rig) -> None:
    complete = rig.fake.answer

    async def hang_up_once(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        rig.fake.answer = complete
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    rig.fake.answer = hang_up_once
    body, _ = await rig.kit.ask(rig.kit.chat())
    assert body["choices"]
    assert len(rig.fake.requests) == 2


async def test_a_connection_that_is_lost_when_the_upstream_has_the_request_is_not_tried_again(rig: Rig) -> None:
    async def work_and_hang_up(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        rig.clock.advance(60.0)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    rig.fake.answer = work_and_hang_up
    with pytest.raises(EngineUnavailable):
        await rig.kit.ask(rig.kit.chat())
    assert len(rig.fake.requests) == 1


async def test_an_upstream_that_always_hangs_up_is_unavailable(rig: Rig) -> None:
    async def hang_up(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    rig.fake.answer = hang_up
    with pytest.raises(EngineUnavailable):
        await rig.kit.ask(rig.kit.chat())


# Connections.


async def test_answers_read_to_their_end_share_a_connection(rig: Rig) -> None:
    for _ in range(3):
        await rig.kit.ask(rig.kit.chat())
        await rig.kit.stream(rig.kit.chat())
    assert len(rig.fake.connections) == 1


async def test_leaving_a_stream_closes_its_connection_at_once(rig: Rig) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(token("a"))
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return response

    rig.fake.answer = endless
    async with rig.engine.run(rig.kit.request(rig.kit.chat(stream=True)), lambda _: None) as answer:
        assert await anext(answer.frames) == token("a")
        assert rig.engine.status().running == 1
    assert rig.engine.status().running == 0
    async with asyncio.timeout(10):
        await gone.wait()


async def test_the_key_and_the_request_id_are_sent(rig: Rig) -> None:
    engine = engine_for(rig.url, api_key="upstream-key")
    await engine.start()
    try:
        request = rig.kit.request(rig.kit.chat())
        async with engine.run(request, lambda _: None) as answer:
            async for _ in answer.frames:
                pass
    finally:
        await engine.close()
    headers = {name.lower(): value for name, value in rig.fake.headers[-1].items()}
    assert headers["authorization"] == "Bearer upstream-key"
    assert headers["x-request-id"] == request.request_id
    assert headers["accept-encoding"] == "identity"


# Names.


async def test_only_the_models_name_is_changed_in_both_directions() -> None:
    fake = FakeOpenAI('org/its own "name"')
    async with serving(fake.app) as url:
        engine = engine_for(url, served_model_name="ours")
        await engine.start()
        kit = EngineKit(engine, "ours")
        try:
            sent = kit.chat('say "model":"x"')
            body, _ = await kit.ask(sent)
            assert fake.requests[-1] == {**sent, "model": fake.models[0]}
            assert body["model"] == "ours"
            frames, _ = await kit.stream(kit.chat())
            assert {chunk["model"] for chunk in chunks_of(frames)} == {"ours"}
        finally:
            await engine.close()


async def test_what_an_answer_says_about_models_is_left_alone(rig: Rig) -> None:
    engine = engine_for(rig.url, served_model_name="ours")
    await engine.start()
    said = frame(
        {"id": 1, "model": "fake-model", "choices": [{"index": 0, "delta": {"content": '{"model":"fake-model"}'}}]}
    )
    rig.streams(said, DONE)
    try:
        frames, _ = await EngineKit(engine, "ours").stream({"messages": []})
    finally:
        await engine.close()
    assert chunks_of(frames)[0]["model"] == "ours"
    assert text_of(chunks_of(frames)) == '{"model":"fake-model"}'


@pytest.mark.parametrize(
    ("served", "chosen", "name", "own"),
    [
        (["a", "b"], {}, ["a", "b"], ["a", "b"]),
        (["a", "b"], {"model": "b"}, ["b"], ["b"]),
        (["a", "b"], {"model": "b", "served_model_name": "x"}, ["x"], ["b"]),
        (["a", "b"], {"served_model_name": "a"}, ["a"], ["a"]),
        (["a"], {"served_model_name": "x"}, ["x"], ["a"]),
    ],
)
async def test_which_models_are_served(
    served: list[str], chosen: dict[str, str], name: list[str], own: list[str]
) -> None:
    fake = FakeOpenAI(*served)
    async with serving(fake.app) as url:
        engine = engine_for(url, **chosen)
        await engine.start()
        try:
            assert [model.name for model in engine.models()] == name
            assert all(model.max_context_tokens == 2048 for model in engine.models())
            for each in name:
                await EngineKit(engine, each).ask({"model": each, "messages": [], "max_tokens": 1})
            assert [request["model"] for request in fake.requests] == own
        finally:
            await engine.close()


# Start.


async def start_error(url: str, **fields: Any) -> str:
    engine = engine_for(url, **fields)
    with pytest.raises(EngineStartError) as failed:
        await engine.start()
    assert not engine.status().ready
    await engine.close()
    return str(failed.value)


async def test_an_upstream_that_is_not_there_is_named_with_the_mend(unused_tcp_port: int) -> None:
    message = await start_error(f"http://127.0.0.1:{unused_tcp_port}/v1")
    assert f"http://127.0.0.1:{unused_tcp_port} " in message
    assert "engine.upstream.url" in message
    assert "\n" not in message


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "", "https:///v1"])
async def test_an_address_that_is_none_is_named(url: str) -> None:
    assert "http://host:port" in await start_error(url)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (lambda: web.Response(status=401), "api_key"),
        (lambda: web.Response(status=404), "404"),
        (lambda: web.Response(text="<html>"), "JSON"),
        (lambda: web.json_response([1]), "JSON"),
        (lambda: web.json_response({"data": {}}), "JSON"),
        (lambda: web.json_response({"data": []}), "no model"),
    ],
)
async def test_a_server_that_is_no_openai_server_is_named_with_the_mend(
    response: Callable[[], web.Response], words: str
) -> None:
    fake = FakeOpenAI()

    async def answer() -> web.StreamResponse:
        return response()

    fake.models_answer = answer
    async with serving(fake.app) as url:
        message = await start_error(url)
    assert url in message
    assert words in message


async def test_a_model_that_the_upstream_does_not_serve_is_named_with_those_it_does() -> None:
    async with serving(FakeOpenAI("a", "b").app) as url:
        assert "it serves a, b" in await start_error(url, model="c")
        assert "engine.model" in await start_error(url, served_model_name="x")


async def test_the_models_config_gives_its_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8, "torch_dtype": "bfloat16"}))
    async with serving(FakeOpenAI().app) as url:
        for path in (tmp_path, tmp_path / "config.json"):
            engine = engine_for(url, model_config_path=str(path))
            await engine.start()
            (model,) = engine.models()
            await engine.close()
            assert model.config == {"hidden_size": 8, "torch_dtype": "bfloat16"}
            assert (model.dtype, model.weight_bytes_each) == ("bfloat16", 2.0)


@pytest.mark.parametrize("text", [None, "{", "[]"])
async def test_a_config_that_cannot_be_read_ends_the_start(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    message = await start_error("http://127.0.0.1:1", model_config_path=str(path))
    assert "engine.upstream.model_config_path" in message
    assert str(path) in message


# Health.


async def test_an_upstream_that_comes_back_is_seen_without_restart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "wattgate")
    fake = FakeOpenAI()
    async with serving(fake.app) as url:
        engine = engine_for(url)
        await engine.start()
    port = int(url.rsplit(":", 1)[1])
    try:
        assert engine.status().ready
        status = await engine.probe()
        assert not status.ready
        assert not status.fatal
        assert url not in status.reason
        assert "cannot be reached" in status.reason
        with pytest.raises(EngineUnavailable):
            await EngineKit(engine, "fake-model").ask({"messages": []})
        async with serving(FakeOpenAI().app, port):
            assert (await engine.probe()).ready
            await EngineKit(engine, "fake-model").ask({"model": "fake-model", "messages": [], "max_tokens": 1})
    finally:
        await engine.close()


async def test_a_failed_request_makes_the_engine_look_at_once() -> None:
    async with serving(FakeOpenAI().app) as url:
        engine = engine_for(url)
        await engine.start()
    try:
        with pytest.raises(EngineUnavailable):
            await EngineKit(engine, "fake-model").ask({"messages": []})
        await until(lambda: not engine.status().ready)
    finally:
        await engine.close()


async def test_the_probe_runs_by_itself() -> None:
    fake = FakeOpenAI()
    async with serving(fake.app) as url:
        engine = engine_for(url, probe_seconds=0.001)
        await engine.start()
        fake.models = ["another"]
        await until(lambda: not engine.status().ready)
        assert "no longer serves fake-model" in engine.status().reason
        fake.models = ["fake-model", "another"]
        await until(lambda: engine.status().ready)
        await engine.close()
    assert not engine.status().ready


# Work.


async def test_work_is_modelled_from_timing_and_corrected_by_usage(rig: Rig) -> None:
    async def answer(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(6):
            rig.clock.advance(0.2)
            await response.write(token(f"t{number}"))
            await read.wait()
            read.clear()
        await response.write(usage(40, 9) + DONE)
        return response

    read = asyncio.Event()
    rig.fake.answer = answer
    work: list[WorkRecord] = []
    sent = rig.clock()
    during = 0
    async with rig.engine.run(rig.kit.request(rig.kit.chat(stream=True)), work.append) as reply:
        async for each in reply.frames:
            if each != DONE:
                during = len(work)
                read.set()
        assert reply.first_token_seconds() == pytest.approx(sent + 0.2)
    assert during >= 1
    assert totals(work) == (40, 0, 8)
    assert all(record.method is Method.MODELLED for record in work)
    (prefill,) = [record for record in work if record.prefill_tokens]
    assert (prefill.started_seconds, prefill.ended_seconds) == pytest.approx((sent, sent + 0.2))
    decodes = [record for record in work if record.decode_tokens]
    assert decodes[0].started_seconds == pytest.approx(sent + 0.2)
    assert decodes[-1].ended_seconds == pytest.approx(sent + 1.2)


async def test_a_request_under_way_is_pending_since_it_was_sent(rig: Rig) -> None:
    sent = rig.clock()
    pending: list[float | None] = []
    rig.streams(token("a"), token("b"), usage(40, 2), DONE)
    assert rig.engine.flush() is None
    async with rig.engine.run(rig.kit.request(rig.kit.chat(stream=True)), lambda _: None) as reply:
        async for _ in reply.frames:
            rig.clock.advance(1.0)
            pending.append(rig.engine.flush())
    assert pending[0] == sent
    assert rig.engine.flush() is None


async def test_cached_prompt_tokens_are_told_apart(rig: Rig) -> None:
    rig.fake.cached_tokens = 3
    body, work = await rig.kit.ask(rig.kit.chat("one two three four five six"))
    assert totals(work) == expected(body["usage"])
    assert totals(work)[1] == 3


async def test_a_list_of_prompts_is_a_sequence_each(rig: Rig) -> None:
    rig.streams(*(frame({"choices": [{"index": index, "text": "x"}]}) for index in (0, 1, 0, 1)), usage(12, 6), DONE)
    frames, work = await rig.kit.stream(rig.kit.text(["a b", "c d"]), TEXT)  # type: ignore[arg-type]
    assert totals(work) == (12, 0, 6 - 2)
    assert usage_of(chunks_of(frames))["completion_tokens"] == 6


async def test_an_aborted_stream_books_the_frames_it_saw_and_an_estimated_prompt(rig: Rig) -> None:
    async def answer(request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(5):
            await response.write(token("x"))
        await asyncio.Event().wait()
        return response

    rig.fake.answer = answer
    work: list[WorkRecord] = []
    async with rig.engine.run(rig.kit.request(rig.kit.chat("word " * 100, stream=True)), work.append) as reply:
        for _ in range(5):
            await anext(reply.frames)
        rig.clock.advance(0.1)
    prefill, cached, decode = totals(work)
    assert 50 <= prefill <= 200
    assert (cached, decode) == (0, 4)


async def test_a_request_that_was_refused_or_never_sent_has_no_work(rig: Rig) -> None:
    work: list[WorkRecord] = []
    answers: list[Callable[[], None]] = [lambda: rig.refuses(400, "{}"), lambda: rig.refuses(500, "")]
    for prepare in answers:
        prepare()
        with pytest.raises(GatewayError):
            async with rig.engine.run(rig.kit.request(rig.kit.chat()), work.append):
                pass
    assert work == []
