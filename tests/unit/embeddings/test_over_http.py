"""``POST /v1/embeddings`` from the ASGI scope to the answer, before an encoder without a model."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from openai.types import CreateEmbeddingResponse
from prometheus_client import CollectorRegistry

from metering.encoder_profile import EncoderProfile
from serving.access import KeyRing
from serving.admission.queue import AdmissionQueue
from serving.embeddings.engine import EncoderEngine
from serving.embeddings.meter import WitnessedWork
from serving.gateway import Gateway
from serving.meter_link import MeterLink
from serving.metrics import Metrics
from serving.tenancy.tenant import TenantSettings
from tests.unit.embeddings.fakes import HeldRemote
from tests.unit.serving.conftest import Exchange, House
from tests.unit.serving.fakes import Books

PATH = "/v1/embeddings"


class EmbeddingHouse(House):
    """A gateway with an embedding model beside its held engine."""

    def __init__(self, remote: HeldRemote, matryoshka: bool, **kwargs: Any) -> None:
        self.remote = remote
        self.embedding_metrics = CollectorRegistry()
        books = Books()
        main = MeterLink("main", books, flush_seconds=1.0, on_fault=lambda _: None)
        self.witness = WitnessedWork(main)
        engine = EncoderEngine(remote, self.witness.learn, matryoshka=matryoshka)
        self.encoder_cap = AdmissionQueue(1, 1)
        gateway = Gateway(
            engine=engine, cap=self.encoder_cap, meter=self.witness, metrics=Metrics(self.embedding_metrics)
        )
        super().__init__(embeddings=gateway, **kwargs)
        self.encoders = engine

    async def embed(self, texts: Any, **fields: Any) -> Exchange:
        return await self.send({"model": "words", "input": texts, **fields}, path=PATH)


async def opened(**kwargs: Any) -> EmbeddingHouse:
    house = EmbeddingHouse(HeldRemote(), kwargs.pop("matryoshka", False), **kwargs)
    await house.encoders.start()
    house.witness.know(house.encoders.models())
    return house


@pytest.fixture
async def house() -> AsyncIterator[EmbeddingHouse]:
    house = await opened()
    yield house
    assert (house.encoder_cap.running, house.encoder_cap.waiting, house.encoders.status().running) == (0, 0, 0)


async def test_an_answer_is_of_openais_form_with_usage_and_receipt(house: EmbeddingHouse) -> None:
    reply = await house.embed(["two words", "one"])
    assert reply.status == 200
    answer = CreateEmbeddingResponse.model_validate(reply.json)
    assert [each.index for each in answer.data] == [0, 1]
    assert np.linalg.norm(answer.data[0].embedding) == pytest.approx(1)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 7
    receipt = reply.json["usage"]["wattgate"]
    profile = house.witness.profiles["words"]
    assert isinstance(profile, EncoderProfile)
    assert receipt["flops_prefill"] == profile.flops(4) + profile.flops(3)
    assert receipt["flops_decode"] == 0
    assert receipt["cache"] == "BYPASS"
    assert reply.headers["x-cache"] == "BYPASS"


async def test_base64_holds_the_same_numbers(house: EmbeddingHouse) -> None:
    plain = (await house.embed("hello", encoding_format="float")).json["data"][0]["embedding"]
    packed = (await house.embed("hello", encoding_format="base64")).json["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), dtype="<f4") == pytest.approx(plain)


@pytest.mark.parametrize(
    ("fields", "param", "word"),
    [
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "empty"),
        ({"input": ["a", ""]}, "input", "empty"),
        ({"input": [1, 2, 3]}, "input", "token ids"),
        ({"input": [[1, 2], [3]]}, "input", "token ids"),
        ({"input": ["a"] * 2049}, "input", "2048"),
        ({"input": None}, "input", "string"),
        ({"input": [True]}, "input[0]", "string"),
        ({"input": {"text": "a"}}, "input", "string"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "float"),
        ({"input": "a", "dimensions": 0}, "dimensions", "1"),
        ({"input": "a", "dimensions": 3}, "dimensions", "always 4"),
        ({"input": "a", "n": "x"}, "n", "not permitted"),
        ({"input": "one two three four five six seven"}, "input", "9 tokens"),
        ({}, "input", "Missing"),
    ],
)
async def test_bad_input_is_refused_and_named(house: EmbeddingHouse, fields: Any, param: str, word: str) -> None:
    reply = await house.send({"model": "words", **fields}, path=PATH)
    assert reply.status == 400
    assert reply.error["param"] == param
    assert word in reply.error["message"]
    assert house.remote.encoder.passes == []


async def test_the_own_dimension_may_be_asked_for(house: EmbeddingHouse) -> None:
    assert len((await house.embed("a", dimensions=4)).json["data"][0]["embedding"]) == 4


async def test_a_matryoshka_model_gives_shorter_vectors_of_length_one() -> None:
    house = await opened(matryoshka=True)
    vector = (await house.embed("hello", dimensions=2)).json["data"][0]["embedding"]
    assert len(vector) == 2
    assert np.linalg.norm(vector) == pytest.approx(1)
    refused = await house.embed("hello", dimensions=5)
    assert "at most 4" in refused.error["message"]


async def test_another_model_is_not_found_here_nor_this_one_for_chat(house: EmbeddingHouse) -> None:
    assert (await house.embed("x", model="m")).status == 404
    chat = await house.send(house.chat() | {"model": "words"})
    assert (chat.status, chat.error["code"]) == (404, "model_not_found")


async def test_both_models_are_listed_and_found(house: EmbeddingHouse) -> None:
    listed = (await house.get("/v1/models")).json["data"]
    assert [entry["id"] for entry in listed] == ["m", "words"]
    assert (await house.get("/v1/models/words")).json["owned_by"] == "wattgate/encoder"
    assert (await house.get("/v1/models/none")).status == 404


async def test_a_dead_encoder_is_asked_once_more_then_it_is_unavailable(house: EmbeddingHouse) -> None:
    house.remote.dies = 1
    assert (await house.embed("x")).status == 200
    house.remote.dies = 2
    reply = await house.embed("x")
    assert (reply.status, reply.error["code"]) == (503, "engine_unavailable")
    assert "killed" not in reply.error["message"]


async def test_a_full_queue_is_429_and_a_client_that_goes_gives_its_place_back(house: EmbeddingHouse) -> None:
    house.remote.gate.clear()
    first = house.begin({"model": "words", "input": "a"}, path=PATH)
    await house.remote.entered.wait()
    second = house.begin({"model": "words", "input": "b"}, path=PATH)
    async with asyncio.timeout(5):
        while house.encoder_cap.waiting == 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
    third = await house.embed("c")
    assert third.status == 429
    assert int(third.headers["retry-after"]) >= 1
    first.leave()
    await first.end()
    assert house.remote.abandoned == 1
    house.remote.gate.set()
    assert (await second.end()).status == 200


async def test_a_tenants_models_and_limits_hold() -> None:
    keys = KeyRing(
        {"acme": "k1", "other": "k2"},
        tenants={
            "acme": TenantSettings.model_validate({"limits": {"tokens_per_minute": 10}}),
            "other": TenantSettings.model_validate({"models": ["m"]}),
        },
    )
    house = await opened(keys=keys)
    ask = {"model": "words", "input": "word " * 5}

    async def status(key: str) -> int:
        return (await house.send(ask, path=PATH, authorization=f"Bearer {key}")).status

    assert await status("wrong") == 401
    assert await status("k2") == 403
    assert await status("k1") == 200
    # 7 tokens of 10 are used, 7 more would be needed
    assert await status("k1") == 429


async def test_where_there_is_no_embedding_model_the_answer_says_so() -> None:
    house = House()
    reply = await house.send({"model": "m", "input": "x"}, path=PATH)
    assert (reply.status, reply.error["code"]) == (404, "embeddings_off")
    assert "embeddings.enabled" in reply.error["message"]


async def test_the_refusal_comes_after_the_body_so_that_its_sender_can_read_it() -> None:
    house = House()
    waiting = house.begin(path=PATH, raw=b"x" * 1000, ends=False)
    await asyncio.sleep(0)
    assert waiting.messages == []
    waiting.leave()
    await waiting.end()
    assert (await house.send(path=PATH, raw=[b"x" * 1000] * 50)).status == 404
