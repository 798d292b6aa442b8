"""The stock SDK, and LangChain's client over it, in their breadth against the real engine."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pydantic
import pytest

from tests.integration.serving.gateway_process import GatewayProcess

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.redis]

ASK: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
FRESH = {"cache-control": "no-store"}


@pytest.fixture(scope="module")
def base(real_gateway: GatewayProcess) -> str:
    return f"{real_gateway.url}/v1"


@pytest.fixture(scope="module")
def client(real_gateway: GatewayProcess) -> openai.OpenAI:
    return real_gateway.client()


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


async def test_many_at_once_through_the_async_client(base: str, model: str) -> None:
    async with openai.AsyncOpenAI(base_url=base, api_key="any", max_retries=0, timeout=120) as client:

        async def streamed(number: int) -> str:
            ask: list[Any] = [{"role": "user", "content": f"Spell {number}."}]
            stream = await client.chat.completions.create(model=model, messages=ask, max_tokens=6, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

        texts = await asyncio.gather(*(streamed(number) for number in range(6)))
    assert all(texts)


def test_a_streaming_response_is_read_line_by_line(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=model, messages=ASK, max_tokens=8, stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0].removeprefix("data: "))["object"] == "chat.completion.chunk"
    with client.chat.completions.with_streaming_response.create(model=model, messages=ASK, max_tokens=8) as response:
        assert response.parse().choices[0].message.content


def test_the_sdks_stream_helper_puts_the_answer_together(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=ASK, max_tokens=8, temperature=0) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "Paris" in (final.choices[0].message.content or "")


class City(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    capital: str = pydantic.Field(max_length=12)


def test_structured_output_is_parsed_into_the_programs_own_type(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.parse(
        model=model, messages=ASK, response_format=City, max_tokens=48, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, City)


def test_a_tool_that_must_be_called_is_called(client: openai.OpenAI, model: str) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "The weather in Paris?"}],
        tools=[tool],
        tool_choice=choice,
        max_tokens=48,
        temperature=0,
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "weather"
    # a parser of the model's own form does not hold a small model to the schema; that it is JSON it does
    json.loads(call.function.arguments)


def test_logprobs_are_those_of_the_tokens_said(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=ASK, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3, extra_headers=FRESH
    )
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert answer.usage is not None
    assert len(told.content) == answer.usage.completion_tokens
    for token in told.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.token == token.top_logprobs[0].token, "greedy says the likeliest"


def test_several_answers_of_one_prompt(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=ASK, n=3, max_tokens=8, temperature=1.0, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert 3 <= answer.usage.completion_tokens <= 24
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_a_seed_draws_the_same_again(client: openai.OpenAI, model: str) -> None:
    def draw(seed: int) -> str | None:
        answer = client.chat.completions.create(
            model=model, messages=ASK, max_tokens=16, temperature=1.5, seed=seed, extra_headers=FRESH
        )
        return answer.choices[0].message.content

    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(3)}) > 1


def test_plain_completions(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="One, two, three,", max_tokens=4, temperature=0, echo=False)
    assert answer.choices[0].text
    chunks = list(client.completions.create(model=model, prompt="Four, five,", max_tokens=4, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


async def test_langchains_client_unmodified(base: str, model: str) -> None:
    langchain = pytest.importorskip("langchain_openai")
    settings = {"model": model, "temperature": 0, "max_tokens": 16, "max_retries": 0}
    # its own HTTP clients are kept for ever, with their sockets
    with httpx.Client() as http:
        async with httpx.AsyncClient() as http_async:
            chat = langchain.ChatOpenAI(
                base_url=base, api_key="any", http_client=http, http_async_client=http_async, **settings
            )
            answer = await asyncio.to_thread(chat.invoke, "What is the capital of France?")
            assert "Paris" in answer.content
            assert answer.usage_metadata["total_tokens"] > 0
            pieces = [piece.content async for piece in chat.astream("What is the capital of Italy?")]
            assert len(pieces) > 1
            assert "".join(pieces).strip(), "what it says of Italy is the small model's own"
            assert await chat.ainvoke([("system", "Be brief."), ("human", "Say hello.")])


@pytest.mark.parametrize(
    ("change", "headers", "kind", "status"),
    [
        ({"temperature": 9}, {}, openai.BadRequestError, 400),
        ({"max_tokens": 100_000}, {}, openai.BadRequestError, 400),
        ({"model": "another"}, {}, openai.NotFoundError, 404),
        ({"user": "x" * (5 * 1024 * 1024)}, {}, openai.APIStatusError, 413),
        ({"max_tokens": 500}, {"x-request-timeout": "0.01"}, openai.InternalServerError, 504),
    ],
)
def test_errors_are_of_the_class_that_programs_catch(
    client: openai.OpenAI,
    model: str,
    change: dict[str, Any],
    headers: dict[str, str],
    kind: type[openai.APIStatusError],
    status: int,
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": model, "messages": ASK} | change, extra_headers=FRESH | headers)
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"]
    assert caught.value.request_id
