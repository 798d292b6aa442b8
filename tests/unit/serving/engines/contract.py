"""What every engine does. Subclasses give the fixture ``kit``."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from metering.work import WorkRecord
from serving.engines.base import Engine, EngineRequest
from serving.errors import EngineRefused, EngineUnavailable

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
DONE = b"data: [DONE]\n\n"
PATIENCE_SECONDS = 30.0
"""Ends a test that hangs; no test depends on its length."""

_ids = itertools.count()


@dataclass
class EngineKit:
    """A started engine and what a test must know of it."""

    engine: Engine
    model: str
    counts_exactly: bool = True
    """Usage counts what was executed: no stop string cut an answer short after it had been computed."""
    too_long: dict[str, Any] = field(default_factory=lambda: {"max_tokens": 1_000_000})
    too_long_param: str | None = None

    def chat(self, text: str = "Say something.", **fields: Any) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 8,
            "temperature": 0,
            **fields,
        }

    def text(self, prompt: str = "The capital of France is", **fields: Any) -> dict[str, Any]:
        return {"model": self.model, "prompt": prompt, "max_tokens": 8, "temperature": 0, **fields}

    def request(self, payload: dict[str, Any], path: str = CHAT, tenant: str = "acme") -> EngineRequest:
        return EngineRequest(f"request-{next(_ids)}", path, payload, self.model, tenant)

    async def ask(self, payload: dict[str, Any], path: str = CHAT) -> tuple[dict[str, Any], list[WorkRecord]]:
        """A unary answer and the work it took."""
        work: list[WorkRecord] = []
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            self.engine.run(self.request(payload, path), work.append) as answer,
        ):
            frames = [frame async for frame in answer.frames]
        assert len(frames) == 1
        return orjson.loads(frames[0]), work

    async def stream(self, payload: dict[str, Any], path: str = CHAT) -> tuple[list[bytes], list[WorkRecord]]:
        """The frames of a stream and the work it took."""
        work: list[WorkRecord] = []
        payload = {**payload, "stream": True, "stream_options": {"include_usage": True}}
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            self.engine.run(self.request(payload, path), work.append) as answer,
        ):
            frames = [frame async for frame in answer.frames]
        return frames, work


def chunks_of(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    return [orjson.loads(frame[len(b"data: ") :]) for frame in frames if frame != DONE]


def text_of(chunks: Iterable[dict[str, Any]], index: int = 0) -> str:
    parts = [
        (choice["delta"].get("content") if "delta" in choice else choice["text"]) or ""
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["index"] == index
    ]
    return "".join(parts)


def usage_of(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert found, "no usage in the stream"
    return found[-1]


def cached_of(usage: dict[str, Any]) -> int:
    return (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def totals(work: Iterable[WorkRecord]) -> tuple[int, int, int]:
    """Tokens computed, reused and decoded."""
    work = list(work)
    return (
        sum(record.prefill_tokens for record in work),
        sum(record.cached_tokens for record in work),
        sum(record.decode_tokens for record in work),
    )


def expected(usage: dict[str, Any], sequences: int = 1) -> tuple[int, int, int]:
    cached = cached_of(usage)
    return usage["prompt_tokens"] - cached, cached, usage["completion_tokens"] - sequences


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110 - what is waited for happens in other processes too
            await asyncio.sleep(0.001)


class EngineContract:
    async def test_a_unary_chat_answer_is_one_body_of_the_sdks_type(self, kit: EngineKit) -> None:
        body, _ = await kit.ask(kit.chat())
        answer = ChatCompletion.model_validate(body)
        assert answer.model == kit.model
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].message.content
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    async def test_a_chat_stream_is_whole_frames_of_the_sdks_type_and_ends_with_done(self, kit: EngineKit) -> None:
        frames, _ = await kit.stream(kit.chat())
        assert frames[-1] == DONE
        assert all(
            frame.startswith(b"data: ") and frame.endswith(b"\n\n") and frame.count(b"\n") == 2 for frame in frames
        )
        chunks = chunks_of(frames)
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk)
            assert chunk["model"] == kit.model
        assert text_of(chunks)
        finished = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
        assert finished in (["stop"], ["length"])
        assert usage_of(chunks)["completion_tokens"] >= 1

    async def test_text_completions_answer_unary_and_as_a_stream(self, kit: EngineKit) -> None:
        body, work = await kit.ask(kit.text(), TEXT)
        answer = Completion.model_validate(body)
        assert answer.choices[0].text
        assert totals(work) == expected(body["usage"])
        frames, work = await kit.stream(kit.text(), TEXT)
        chunks = chunks_of(frames)
        for chunk in chunks:
            # the type of a whole answer wants a finish reason; in a stream only the last chunk has one
            choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
            Completion.model_validate({**chunk, "choices": choices})
        assert frames[-1] == DONE
        assert text_of(chunks) == answer.choices[0].text
        assert totals(work) == expected(usage_of(chunks))

    async def test_the_work_of_a_unary_answer_adds_up_to_its_usage(self, kit: EngineKit) -> None:
        body, work = await kit.ask(kit.chat(max_tokens=20))
        assert totals(work) == expected(body["usage"])

    async def test_the_work_of_a_stream_adds_up_to_its_usage(self, kit: EngineKit) -> None:
        frames, work = await kit.stream(kit.chat("Count to ten.", max_tokens=20))
        assert totals(work) == expected(usage_of(chunks_of(frames)))

    async def test_records_name_their_request_and_lie_within_it(self, kit: EngineKit) -> None:
        work: list[WorkRecord] = []
        request = kit.request(kit.chat(max_tokens=12), tenant="zeta")
        async with kit.engine.run(request, work.append) as answer:
            async for _ in answer.frames:
                pass
        assert {(r.request_id, r.model, r.tenant, r.method) for r in work} == {
            (request.request_id, kit.model, "zeta", kit.engine.method)
        }
        assert all(record.started_seconds <= record.ended_seconds for record in work)
        decodes = [record for record in work if record.decode_tokens]
        prompt = sum(record.prefill_tokens + record.cached_tokens for record in work)
        context = prompt + 1
        for record in decodes:
            assert record.first_context_tokens == context
            context += record.decode_tokens

    async def test_an_answer_of_one_token_has_no_decode_work(self, kit: EngineKit) -> None:
        body, work = await kit.ask(kit.chat(max_tokens=1))
        assert body["usage"]["completion_tokens"] == 1
        assert totals(work) == expected(body["usage"])

    async def test_several_sequences_are_answered_and_booked(self, kit: EngineKit) -> None:
        body, work = await kit.ask(kit.chat(n=2, max_tokens=6, temperature=1, seed=3))
        assert [choice["index"] for choice in body["choices"]] == [0, 1]
        assert totals(work)[2] == body["usage"]["completion_tokens"] - 2
        frames, work = await kit.stream(kit.chat(n=2, max_tokens=6, temperature=1, seed=3))
        chunks = chunks_of(frames)
        assert all(text_of(chunks, index) for index in (0, 1))
        assert totals(work)[2] == usage_of(chunks)["completion_tokens"] - 2

    async def test_temperature_zero_answers_the_same_twice(self, kit: EngineKit) -> None:
        first, _ = await kit.ask(kit.chat("Name a colour."))
        second, _ = await kit.ask(kit.chat("Name a colour."))
        assert first["choices"][0]["message"]["content"] == second["choices"][0]["message"]["content"]

    async def test_stream_and_unary_give_the_same_text(self, kit: EngineKit) -> None:
        body, _ = await kit.ask(kit.chat("Name a city."))
        frames, _ = await kit.stream(kit.chat("Name a city."))
        assert text_of(chunks_of(frames)) == body["choices"][0]["message"]["content"]

    async def test_concurrent_requests_keep_their_records_apart(self, kit: EngineKit) -> None:
        async def one(number: int) -> None:
            if number % 2:
                frames, work = await kit.stream(kit.chat(f"Story {number} " * number, max_tokens=3 + number))
                usage = usage_of(chunks_of(frames))
            else:
                body, work = await kit.ask(kit.chat(f"Story {number} " * number, max_tokens=3 + number))
                usage = body["usage"]
            assert totals(work) == expected(usage)
            assert len({record.request_id for record in work}) == 1

        await asyncio.gather(*(one(number) for number in range(1, 9)))
        await until(lambda: kit.engine.status().running == 0)

    async def test_requests_with_the_same_id_are_both_answered(self, kit: EngineKit) -> None:
        # the id may be a client's own, and clients repeat themselves
        async def one(number: int) -> int:
            payload = kit.chat(f"Story {number}", max_tokens=3 + number, ignore_eos=True)
            work: list[WorkRecord] = []
            async with kit.engine.run(EngineRequest("the-same", CHAT, payload, kit.model, "t"), work.append) as answer:
                body = orjson.loads(b"".join([frame async for frame in answer.frames]))
            assert totals(work) == expected(body["usage"])
            return int(body["usage"]["completion_tokens"])

        assert await asyncio.gather(*(one(number) for number in range(4))) == [3, 4, 5, 6]

    async def test_leaving_a_stream_aborts_it_and_its_work_is_handed_over(self, kit: EngineKit) -> None:
        work: list[WorkRecord] = []
        payload = kit.chat("Tell a very long story.", max_tokens=1500, ignore_eos=True, stream=True)
        payload["stream_options"] = {"include_usage": True}
        seen = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with kit.engine.run(kit.request(payload), work.append) as answer:
                async for frame in answer.frames:
                    seen.append(frame)
                    if len([f for f in seen if text_of(chunks_of([f]))]) == 3:
                        break
                assert kit.engine.status().running == 1
            # one token comes from the prefill; others may have been made that nobody read
            assert totals(work)[0] + totals(work)[1] >= 1
            assert 2 <= totals(work)[2] < 1499
            await until(lambda: kit.engine.status().running == 0)

    async def test_a_cancelled_unary_request_is_aborted_and_its_work_is_handed_over(self, kit: EngineKit) -> None:
        work: list[WorkRecord] = []
        payload = kit.chat("Tell a very long story.", max_tokens=1500, ignore_eos=True)

        async def ask() -> None:
            async with kit.engine.run(kit.request(payload), work.append) as answer:
                async for _ in answer.frames:
                    pass

        task = asyncio.create_task(ask())
        await until(lambda: kit.engine.status().running == 1)
        # let it get as far as a few tokens, wherever it runs
        frames, _ = await kit.stream(kit.chat(max_tokens=3))
        assert frames
        task.cancel()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: kit.engine.status().running == 0)
        assert totals(work)[0] + totals(work)[1] >= 1
        assert totals(work)[2] < 1499

    async def test_a_request_beyond_the_context_is_refused_with_its_reason(self, kit: EngineKit) -> None:
        work: list[WorkRecord] = []
        for stream in (False, True):
            with pytest.raises(EngineRefused) as refused:
                async with kit.engine.run(kit.request(kit.chat(stream=stream) | kit.too_long), work.append):
                    pass
            assert refused.value.status == 400
            assert refused.value.type
            assert "1000000" in refused.value.message or "max_tokens" in refused.value.message
            assert refused.value.param == kit.too_long_param
        assert not work
        assert kit.engine.status().running == 0

    async def test_a_ready_engine_names_its_models(self, kit: EngineKit) -> None:
        assert kit.engine.status().ready
        assert not kit.engine.status().fatal
        assert kit.model in [model.name for model in kit.engine.models()]


class EngineEndContract:
    """For an engine that the test may close."""

    async def test_a_closed_engine_is_unavailable(self, kit: EngineKit) -> None:
        await kit.ask(kit.chat())
        await kit.engine.close()
        await kit.engine.close()
        assert not kit.engine.status().ready
        assert kit.engine.status().reason
        with pytest.raises(EngineUnavailable):
            async with kit.engine.run(kit.request(kit.chat()), lambda _: None):
                pass
