"""``wattgate cache replay`` as a user runs it: real encoder, its own Redis 8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli.cache import app

pytestmark = pytest.mark.redis

ROWS = [
    ("a", 0, "T1", "How do I reset my password?", "reset", False),
    ("b", 1, "T1", "How can I reset my password?", "reset", False),
    ("c", 2, "T2", "How can I reset my password?", "reset", False),
    ("d", 3, "T1", "How long do I boil 3 eggs?", "three", False),
    ("e", 4, "T1", "How long do I boil 4 eggs?", "four", False),
    ("f", 5, "T1", "How do I reset my password?", "reset", False),
    ("g", 6, "T1", "How do I reset my password?", "reset", True),
    ("h", 100_000, "T1", "How do I reset my password?", "reset", False),
]


def test_a_stream_is_decided_line_by_line(tmp_path: Path) -> None:
    stream, decisions = tmp_path / "stream.jsonl", tmp_path / "decisions.jsonl"
    with stream.open("w", encoding="utf-8") as file:
        for name, seconds, tenant, text, intent, no_cache in ROWS:
            messages = [{"role": "user", "content": text}]
            row = {"id": name, "t": seconds, "tenant": tenant, "messages": messages, "intent_id": intent}
            file.write(json.dumps(row | ({"no_cache": True} if no_cache else {})) + "\n")
    result = CliRunner().invoke(
        app, ["replay", str(stream), "--max-wrong", "0.02", "--json", "--decisions", str(decisions)]
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert {"hit_rate", "wrong_of_hits", "no_cache_violations", "tenant_violations", "lookups_per_second"} <= set(
        figures
    )
    assert figures["hit_rate"] == pytest.approx(2 / 8)
    assert (figures["wrong_of_hits"], figures["no_cache_violations"], figures["tenant_violations"]) == (0, 0, 0)
    assert all({"threshold", "hit_rate", "wrong_of_hits"} <= set(point) for point in figures["curve"])
    decided = [json.loads(each) for each in decisions.read_text("utf-8").splitlines()]
    assert [(each["id"], each["hit"], each["source"]) for each in decided] == [
        ("a", False, None),
        ("b", True, "a"),
        ("c", False, None),
        ("d", False, None),
        ("e", False, None),
        ("f", True, "a"),
        ("g", False, None),
        ("h", False, None),
    ]
    assert decided[4]["why"] == "guard:numbers"


@pytest.mark.parametrize(
    ("content", "arguments", "named"),
    [
        ("{broken\n", [], "line 1: not JSON"),
        ('{"id":1,"t":0,"tenant":"a","messages":[{}],"intent_id":1}\n', ["--max-wrong", "7"], "max_wrong"),
        ('{"id":1,"t":0,"tenant":"a","messages":[{}],"intent_id":1}\n', ["--calibration", "none.json"], "none.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    tmp_path: Path, content: str, arguments: list[str], named: str
) -> None:
    stream = tmp_path / "stream.jsonl"
    stream.write_text(content)
    result = CliRunner().invoke(app, ["replay", str(stream), *arguments])
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
