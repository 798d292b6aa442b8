"""Every example in the library's docstrings runs."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest

import metering
from tests.unit.metering.model_configs import SMOLLM2_135M

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
MODULES = ["metering", *(found.name for found in pkgutil.walk_packages(metering.__path__, "metering."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), optionflags=FLAGS).failed == 0


def test_the_public_functions_have_examples() -> None:
    finder = doctest.DocTestFinder()
    examples = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert examples >= 25


def test_the_walk_through_in_the_readme_runs_as_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "load_architecture" in block)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SMOLLM2_135M))
    assert len(code.strip().splitlines()) <= 6
    exec(code.replace("path/to/config.json", str(config)), {})
    flops, seconds, joules, grams = capsys.readouterr().out.split()
    linear = 30 * (576 * (9 + 2 * 3) * 64 + 9 * 64 * 576 + 3 * 576 * 1536)
    pairs = 1199 * 1200 // 2
    assert int(flops) == 2 * 1199 * linear + 200 * 2 * 576 * 49152 + 30 * 4 * 9 * 64 * pairs
    assert 0 < float(seconds) < 1
    assert float(joules) > float(grams) > 0
