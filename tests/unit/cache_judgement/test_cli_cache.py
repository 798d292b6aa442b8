"""``wattgate cache eval``: exit codes and messages that need no model."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli.cache import app


@pytest.mark.parametrize(
    ("content", "arguments", "named"),
    [
        ("{broken\n", [], "line 1: not JSON"),
        ("", [], "no pairs"),
        ('{"id":"1","a":"q","b":"q","same_answer":true}\n', ["--max-wrong", "7"], "max_wrong"),
        ('{"id":"1","a":"q","b":"q","same_answer":true}\n', ["--policy", "threshold", "--threshold", "3"], "threshold"),
        ('{"id":"1","a":"q","b":"q","same_answer":true}\n', ["--calibration", "/no/such/file"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    tmp_path: Path, content: str, arguments: list[str], named: str
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(content)
    result = CliRunner().invoke(app, ["eval", str(pairs), *arguments])
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["eval", str(tmp_path / "none.jsonl")])
    assert result.exit_code == 2
    assert "none.jsonl" in result.stderr
