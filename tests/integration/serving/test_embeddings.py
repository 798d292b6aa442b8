"""Embeddings of the bundled MiniLM through Ray Serve and HAProxy, by the stock SDK."""

from __future__ import annotations

import concurrent.futures

import httpx
import numpy as np
import openai
import pytest

from metering.architecture import architecture_from_config
from metering.flops import encode_flops
from tests.integration.serving.gateway_process import GatewayProcess, until

pytestmark = [pytest.mark.ray]

MODEL = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def gateway(simulated_gateway: GatewayProcess) -> GatewayProcess:
    return simulated_gateway


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> openai.OpenAI:
    return gateway.client()


def similarity(one: list[float], other: list[float]) -> float:
    return float(np.dot(one, other))


def test_like_texts_have_like_vectors(client: openai.OpenAI) -> None:
    texts = ["How do I boil an egg?", "What is the way to cook an egg in water?", "The stock market fell on Monday."]
    # the SDK asks for base64 and decodes it
    answer = client.embeddings.create(model=MODEL, input=texts)
    egg, cook, market = (each.embedding for each in answer.data)
    assert len(egg) == 384
    assert similarity(egg, egg) == pytest.approx(1, abs=1e-5)
    assert similarity(egg, cook) > 0.6 > 0.3 > similarity(egg, market)
    plain = client.embeddings.create(model=MODEL, input=texts[0], encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(egg, abs=1e-4)


def test_usage_and_receipt_are_of_the_texts_computed(client: openai.OpenAI) -> None:
    from sentence_transformers import SentenceTransformer

    from cache.embedders.bundled import minilm_folder

    reference = SentenceTransformer(str(minilm_folder()), device="cpu", local_files_only=True)
    text = "Metering the energy of an embedding."
    tokens = len(reference.tokenizer(text)["input_ids"])
    answer = client.embeddings.create(model=MODEL, input=text, encoding_format="float")
    assert answer.data[0].embedding == pytest.approx(reference.encode(text, normalize_embeddings=True), abs=1e-4)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens
    receipt = answer.usage.model_dump()["wattgate"]
    architecture = architecture_from_config(reference[0].auto_model.config.to_dict())
    assert receipt["flops_prefill"] == encode_flops(architecture, tokens).total
    assert receipt["cache"] == "BYPASS"


def test_requests_sent_at_once_share_passes(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    before = gateway.metric("wattgate_embedding_batch_texts_count")
    texts = gateway.metric("wattgate_embedding_batch_texts_sum")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda number: client.embeddings.create(model=MODEL, input=f"number {number}"), range(8))
        )
    assert len({tuple(answer.data[0].embedding) for answer in answers}) == 8
    assert gateway.metric("wattgate_embedding_batch_texts_sum") == texts + 8
    assert gateway.metric("wattgate_embedding_batch_texts_count") - before < 8


def test_a_request_larger_than_a_pass_comes_back_whole_and_in_order(client: openai.OpenAI) -> None:
    texts = [f"the number {number}" for number in range(70)]
    answer = client.embeddings.create(model=MODEL, input=texts)
    alone = client.embeddings.create(model=MODEL, input=texts[69])
    assert [each.index for each in answer.data] == list(range(70))
    assert answer.data[69].embedding == pytest.approx(alone.data[0].embedding, abs=1e-4)


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"input": "word " * 300}, openai.BadRequestError, "input"),
        ({"input": ""}, openai.BadRequestError, "input"),
        ({"input": [[1, 2]]}, openai.BadRequestError, "input"),
        ({"input": "x", "dimensions": 10}, openai.BadRequestError, "dimensions"),
        ({"input": "x", "model": "simulated-1b"}, openai.NotFoundError, "model"),
    ],
)
def test_what_cannot_be_embedded_raises_the_sdks_class(client, fields, error, param) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error) as caught:
        client.embeddings.create(**({"model": MODEL} | fields))
    assert caught.value.param == param


def test_it_is_listed_counted_and_final_in_the_books(client: openai.OpenAI, gateway: GatewayProcess) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    raw = client.embeddings.with_raw_response.create(model=MODEL, input="to be settled")
    receipt_id = raw.headers["x-wattgate-receipt"]

    def final() -> dict | None:  # type: ignore[type-arg]
        got = httpx.get(f"{gateway.url}/v1/receipts/{receipt_id}", timeout=30)
        return got.json() if got.status_code == 200 and got.json()["status"] == "final" else None

    receipt = until(final, what="a final receipt")
    assert receipt["flops_prefill"] == raw.parse().usage.model_dump()["wattgate"]["flops_prefill"]
    assert gateway.metric("wattgate_books_difference_joules") == 0
    assert gateway.metric("wattgate_requests_total", model=MODEL, endpoint="embeddings", status="200") > 0
    assert gateway.metric("wattgate_flops_total", model=MODEL) > 0
    until(lambda: gateway.metric("wattgate_running_requests", model=MODEL) == 0, what="the gauge")
