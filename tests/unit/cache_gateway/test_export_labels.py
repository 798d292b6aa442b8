from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from cache.calibration import Calibration, Label
from serving.cli.cache import app
from serving.label_file import LabelFile


def test_labels_gathered_are_a_calibration(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    LabelFile(path).append(0.91, True, True)
    result = CliRunner().invoke(app, ["export-labels", str(path)])
    assert Calibration.from_dict(json.loads(result.stdout)).labels == (Label(0.91, True),)


def test_without_labels_it_says_how_to_get_them(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export-labels", str(tmp_path / "none.jsonl")])
    assert result.exit_code == 2
    assert "shadow_share" in result.stderr
