"""The bundled encoders and the whole evaluation with the real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cache.embedders import Encoder, ThreadedEmbedder, load_encoder
from serving.cli.cache import app


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture
def embedder(encoder: Encoder) -> Iterator[ThreadedEmbedder]:
    service = ThreadedEmbedder(encoder, deadline_seconds=30.0)
    yield service
    service.close()


def test_vectors_have_length_one_and_do_not_depend_on_their_batch(encoder: Encoder) -> None:
    texts = ["How do I reset my password?", "A much longer question about the weather in the north of Norway in May"]
    together, alone = encoder.encode(texts), encoder.encode(texts[:1])
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    assert np.array_equal(together[:1], alone)


def test_int8_stays_near_fp32(encoder: Encoder) -> None:
    texts = ["How do I reset my password?", "What is the capital of Australia?"]
    exact = load_encoder("minilm-fp32")
    assert exact.id != encoder.id
    assert float((encoder.encode(texts) * exact.encode(texts)).sum(axis=1).min()) > 0.998


async def test_text_beyond_the_window_is_not_embedded(embedder: ThreadedEmbedder) -> None:
    assert await embedder.embed("word " * 254) is not None
    assert await embedder.embed("word " * 255) is None
    assert await embedder.embed("word " * 100_000) is None


def test_eval_prints_its_contract_and_is_deterministic(tmp_path: Path) -> None:
    pairs, decisions = tmp_path / "pairs.jsonl", tmp_path / "decisions.jsonl"
    rows = [
        {
            "id": "r",
            "a": "How do I reset my password?",
            "b": "how can i reset my password",
            "same_answer": True,
            "category": "repeat",
        },
        {"id": "t", "a": "Enable dark mode", "b": "Disable dark mode", "same_answer": False, "category": "trap"},
        {
            "id": "p",
            "a": "Como faço para cancelar meu plano?",
            "b": "Como posso cancelar o meu plano?",
            "same_answer": True,
        },
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["eval", str(pairs), "--max-wrong", "0.05", "--json", "--decisions", str(decisions)]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["hits"]["count"] == 2
    assert result["wrong"]["count"] == 0
    assert result["calibration"]["note"] == "uncalibrated on your traffic"
    lines = [json.loads(line) for line in decisions.read_text().splitlines()]
    assert [set(line) for line in lines] == [{"id", "hit", "score", "why"}] * 3
    assert lines[1] == {"id": "t", "hit": False, "score": 0.0, "why": "guard:polarity"}
    assert CliRunner().invoke(app, arguments).stdout == first.stdout
