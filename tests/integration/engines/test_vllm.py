"""The real vLLM with the bundled model, behind the engine seam."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import psutil
import pytest
import pytest_asyncio

from metering.work import WorkRecord
from serving.engines.vllm import VllmEngine
from serving.errors import EngineRefused, EngineUnavailable
from serving.grey_zone import question
from tests.unit.serving.engines.contract import (
    DONE,
    EngineContract,
    EngineKit,
    cached_of,
    chunks_of,
    expected,
    text_of,
    totals,
    until,
)

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="session"),
    # torch's and vLLM's own deprecations are not ours to end
    pytest.mark.filterwarnings("default"),
]
PARAGRAPH = "The grid operator balances supply and demand every few seconds, all day and all night. " * 8


@pytest_asyncio.fixture(loop_scope="session")
async def kit(vllm: VllmEngine) -> EngineKit:
    return EngineKit(vllm, vllm.models()[0].name, too_long_param="max_tokens")


class TestVllmEngine(EngineContract):
    pass


async def test_a_repeated_prompt_is_reused_and_neither_computed_nor_billed_again(kit: EngineKit) -> None:
    _, first = await kit.ask(kit.chat(PARAGRAPH))
    body, second = await kit.ask(kit.chat(PARAGRAPH))
    assert cached_of(body["usage"]) > 0
    assert totals(second) == expected(body["usage"])
    assert totals(second)[0] < totals(first)[0]


async def test_the_model_knows_the_capital_of_france(kit: EngineKit) -> None:
    body, _ = await kit.ask(kit.chat("What is the capital of France?", max_tokens=16))
    assert "Paris" in body["choices"][0]["message"]["content"]


async def test_the_grey_zone_is_answered_with_one_constrained_token(kit: EngineKit) -> None:
    payload = question(kit.chat("")["model"], "How do I reset my password?", "How can I set a new password?")
    body, work = await kit.ask(payload)
    assert body["choices"][0]["message"]["content"] in ("yes", "no")
    assert body["usage"]["completion_tokens"] == 1
    assert totals(work) == expected(body["usage"])


async def test_a_schema_is_kept_to(kit: EngineKit) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "large": {"type": "boolean"}},
        "required": ["city", "large"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    body, work = await kit.ask(kit.chat("Describe Paris as JSON.", max_tokens=60, response_format=form))
    answer = json.loads(body["choices"][0]["message"]["content"])
    assert set(answer) == {"city", "large"}
    assert isinstance(answer["large"], bool)
    assert totals(work) == expected(body["usage"])


async def test_a_named_tool_is_called(kit: EngineKit) -> None:
    parameters = {
        "type": "object",
        "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
        "required": ["unit"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "temperature", "parameters": parameters}}
    choice = {"type": "function", "function": {"name": "temperature"}}
    asked = kit.chat("How warm is it?", max_tokens=120, tools=[tool], tool_choice=choice)
    body, work = await kit.ask(asked)
    (call,) = body["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "temperature"
    # a parser of the model's own form does not hold a small model to the schema; that it is JSON it does
    json.loads(call["function"]["arguments"])
    assert totals(work) == expected(body["usage"])


async def test_logprobs_are_given_for_each_token(kit: EngineKit) -> None:
    body, _ = await kit.ask(kit.chat(logprobs=True, top_logprobs=2, max_tokens=4))
    content = body["choices"][0]["logprobs"]["content"]
    assert len(content) == body["usage"]["completion_tokens"]
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in content)


async def test_a_stop_string_ends_the_answer(kit: EngineKit) -> None:
    whole, _ = await kit.ask(kit.chat("What is the capital of France?", max_tokens=16))
    body, work = await kit.ask(kit.chat("What is the capital of France?", max_tokens=16, stop=["Paris"]))
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == whole["choices"][0]["message"]["content"].split("Paris")[0]
    # a step may have been under way when the string was found
    assert totals(work)[2] - (body["usage"]["completion_tokens"] - 1) in (0, 1)


async def test_a_seed_decides_a_sampled_answer(kit: EngineKit) -> None:
    answers = []
    for seed in (5, 5, 6):
        body, _ = await kit.ask(kit.chat("Invent a name.", temperature=1.5, seed=seed, max_tokens=12))
        answers.append(body["choices"][0]["message"]["content"])
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": []}, ""),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "2048"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": -3}, "temperature"),
        ({"logprobs": True, "top_logprobs": 1000}, "logprobs"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no"}}}}, ""),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool"),
    ],
)
async def test_bad_requests_are_refused_with_a_reason(kit: EngineKit, fields: dict[str, Any], words: str) -> None:
    work: list[WorkRecord] = []
    with pytest.raises(EngineRefused) as refused:
        async with kit.engine.run(kit.request(kit.chat(**fields)), work.append):
            pass
    assert 400 <= refused.value.status < 500
    assert words in refused.value.message
    assert "Traceback" not in refused.value.message
    assert work == []
    assert kit.engine.status().ready


async def test_the_first_token_is_timed_by_the_engine(kit: EngineKit) -> None:
    work: list[WorkRecord] = []
    async with kit.engine.run(kit.request(kit.chat()), work.append) as answer:
        async for _ in answer.frames:
            pass
        first = answer.first_token_seconds()
    assert first is not None
    (prefill,) = [record for record in work if record.prefill_tokens]
    assert prefill.started_seconds < prefill.ended_seconds == first


async def test_many_clients_that_go_leave_nothing_running(kit: EngineKit) -> None:
    work: dict[int, list[WorkRecord]] = {number: [] for number in range(12)}

    async def leave(number: int) -> None:
        payload = kit.chat(f"Story {number}", max_tokens=800, ignore_eos=True, stream=bool(number % 2))
        async with kit.engine.run(kit.request(payload), work[number].append) as answer:
            async for _ in answer.frames:
                pass

    tasks = [asyncio.create_task(leave(number)) for number in work]
    await until(lambda: kit.engine.status().running == 12)
    await kit.stream(kit.chat(max_tokens=3))
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in done)
    await until(lambda: kit.engine.status().running == 0)
    assert all(totals(records)[0] + totals(records)[1] > 0 for records in work.values())
    body, records = await kit.ask(kit.chat())
    assert totals(records) == expected(body["usage"])


async def test_a_hung_engine_core_is_killed_which_ends_running_answers_and_is_fatal(
    vllm: VllmEngine, kit: EngineKit
) -> None:
    """The last test of the shared engine: nothing answers after it."""
    payload = kit.chat("A long story.", max_tokens=1500, ignore_eos=True, stream=True)
    asked = kit.chat("A long story.", max_tokens=1500, ignore_eos=True)
    frames: list[bytes] = []
    outcome: list[BaseException] = []

    async def stream() -> None:
        async with kit.engine.run(kit.request(payload), lambda _: None) as answer:
            async for frame in answer.frames:
                frames.append(frame)  # noqa: PERF401 - what came before the death is looked at

    async def unary() -> None:
        async with kit.engine.run(kit.request(asked), lambda _: None) as answer:
            async for _ in answer.frames:
                pass

    tasks = [asyncio.create_task(stream()), asyncio.create_task(unary())]
    await until(lambda: bool(text_of(chunks_of(frames))))
    cores = [child for child in psutil.Process().children(recursive=True) if "EngineCore" in child.name()]
    assert cores, [child.name() for child in psutil.Process().children(recursive=True)]
    assert not vllm.end_if_hung(60)
    os.kill(cores[0].pid, signal.SIGSTOP)
    await until(lambda: vllm.end_if_hung(2))
    async with asyncio.timeout(60):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    outcome = [result for result in results if isinstance(result, BaseException)]
    assert isinstance(results[1], EngineUnavailable)
    # a stream ends with an error frame, or raises; never as if it were complete
    assert results[0] in outcome or b'"error"' in b"".join(frames)
    assert not (results[0] is None and b'"error"' not in b"".join(frames) and frames[-1] == DONE)
    assert kit.engine.status().fatal
    assert "gave nothing" in kit.engine.status().reason
    with pytest.raises(EngineUnavailable):
        await kit.ask(kit.chat())
    await kit.engine.close()
    with pytest.raises(EngineUnavailable):
        await kit.ask(kit.chat())
