"""The README's generated tables are those of the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_generated_parts_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "deploy" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    text = (ROOT / "README.md").read_text()
    assert readme.rendered(text) == text, "run `make docs`"
