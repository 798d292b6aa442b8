from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cache import shared_labels
from cache.calibration import Calibration, Label
from cache.evidence import VerifiedLabel
from serving.cli.cache import app
from serving.label_file import LabelFile

RIGHT = VerifiedLabel("served", 0.91, True)
TRUTH_KNOWN = VerifiedLabel("same", 0.0, False)


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export-labels", *map(str, arguments)])


def write(path: Path, *versions: str) -> Path:
    for version in versions:
        LabelFile(path, version=version).append(RIGHT)
    return path


def test_labels_gathered_are_a_calibration(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl", "v")
    LabelFile(path, version="v").append(TRUTH_KNOWN)
    assert Calibration.from_dict(json.loads(export(path).stdout)).labels == (Label(0.91, True),)


def test_without_labels_it_says_how_to_get_them(tmp_path: Path) -> None:
    result = export(tmp_path / "none.jsonl")
    assert result.exit_code == 2
    assert "shadow_share" in result.stderr


def test_scores_of_several_judges_are_chosen_between_and_never_mixed(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl", "one", "other", "other")
    refused = export(path)
    assert refused.exit_code == 2
    assert "one (1 labels), other (2 labels)" in refused.stderr
    assert len(json.loads(export(path, "--version", "other").stdout)["scores"]) == 2
    assert "held: one, other" in export(path, "--version", "third").stderr


def test_labels_are_read_from_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    async def versions(url: str) -> list[str]:
        return ["v"]

    async def exchange(self: Any) -> list[VerifiedLabel]:
        return [RIGHT, TRUTH_KNOWN]

    monkeypatch.setattr(shared_labels, "versions", versions)
    monkeypatch.setattr(shared_labels.SharedLabels, "exchange", exchange)
    result = export("--redis", "redis://127.0.0.1:1/0")
    assert Calibration.from_dict(json.loads(result.stdout)).labels == (Label(0.91, True),)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--redis"),
        (["labels.jsonl", "--redis", "redis://x"], "not both"),
        (["--redis", "http://x"], "expected redis://"),
        (["--redis", "redis://127.0.0.1:1/0"], "Redis cannot be asked"),
    ],
)
def test_a_place_that_holds_no_labels_is_named(arguments: list[str], named: str) -> None:
    result = export(*arguments)
    assert result.exit_code == 2
    assert named in result.stderr
