"""What the judge is trained on, beside what it is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.training.families import load_families
from tests.bench.cache import heldout


@pytest.mark.parametrize("path", sorted(heldout.PATH.parent.glob("*.jsonl")), ids=lambda path: path.stem)
def test_no_question_of_the_benches_is_trained_on(path: Path) -> None:
    trained = {text.casefold() for family in load_families() for text in (*family.same, *family.trap)}
    measured = {text for _, texts in heldout.intents(path) for text in texts}
    assert measured
    assert not [text for text in measured if text.casefold() in trained]
