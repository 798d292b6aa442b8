from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving.operations.drift import Window
from serving.operations.drift_references import ALL, OwnRebases, References
from tests.unit.operations.test_drift import traffic, vectors

FIRST, SECOND = Window(traffic(0, 60).requests), Window(traffic(1, 60).requests)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def node(tmp_path: Path, clock: Clock, rebases: OwnRebases | None = None) -> References:
    return References(tmp_path / "drift", tmp_path / "vectors", rebases, clock)


def test_the_first_window_is_the_reference_of_all_that_come_after_it(tmp_path: Path, clock: Clock) -> None:
    assert node(tmp_path, clock).settle("org/m", 10.0, FIRST) is None
    later = node(tmp_path, clock)
    assert later.settle("org/m", 20.0, SECOND) == FIRST
    assert later.settle("n", 20.0, SECOND) is None
    kept = later.shown("org/m")
    assert kept is not None
    assert (kept.began_seconds, kept.window) == (10.0, FIRST)


def test_vectors_and_verdicts_are_kept_apart_and_whole(tmp_path: Path, clock: Clock) -> None:
    window = Window((), embeddings=vectors(0, size=50), verified_wrong=(True, False))
    node(tmp_path, clock).settle(ALL, 10.0, window)
    assert not (tmp_path / "drift").exists(), "what is made of prompts' text ends with the run"
    kept = node(tmp_path, clock).settle(ALL, 20.0, Window(()))
    assert kept is not None
    assert np.array_equal(np.stack(kept.embeddings), np.stack(window.embeddings))
    assert kept.verified_wrong == (True, False)


def test_vectors_of_another_encoder_begin_anew(tmp_path: Path, clock: Clock) -> None:
    references = node(tmp_path, clock)
    vecs = vectors(0, size=50)
    references.settle(ALL, 10.0, Window((), embeddings=vecs, encoder="one"))
    # as long as the first's, and no nearer for that
    other = Window((), embeddings=vecs, encoder="another")
    assert references.settle(ALL, 20.0, other) is None
    assert references.settle(ALL, 30.0, other) is not None


def test_an_engine_s_figures_at_a_batch_are_a_reference_of_their_own(tmp_path: Path, clock: Clock) -> None:
    shared = OwnRebases()
    engine = Window((), mfu_ratios=(0.25, 0.5), joules_per_token=(1.5,))
    for of in ("octave 1", "octave 2", ""):
        assert node(tmp_path, clock, shared).settle("m", 10.0, engine if of else FIRST, of) is None
    assert node(tmp_path, clock, shared).settle("m", 20.0, SECOND, "octave 2") == engine
    assert node(tmp_path, clock, shared).settle("m", 20.0, SECOND) == FIRST
    node(tmp_path, clock, shared).rebase("m")
    for of in ("octave 1", "octave 2", ""):
        assert node(tmp_path, clock, shared).settle("m", 120.0, SECOND, of) is None


@pytest.mark.parametrize("model", [None, "m"])
def test_a_rebase_holds_for_other_replicas_on_other_nodes_too(tmp_path: Path, clock: Clock, model: str | None) -> None:
    shared = OwnRebases()
    here, there = (node(tmp_path / name, clock, shared) for name in ("a", "b"))
    for one in ("a", "b"):
        (tmp_path / one).mkdir()
    for references in (here, there):
        references.settle("m", 10.0, FIRST)
    here.rebase(model)
    assert here.shown("m") is there.shown("m") is None
    assert there.settle("m", 90.0, FIRST) is None, "of both before and after: it is not the reference"
    assert there.shown("m") is None
    assert there.settle("m", 110.0, SECOND) is None
    assert there.settle("m", 120.0, FIRST) == SECOND


def test_a_damaged_file_is_no_reference(tmp_path: Path, clock: Clock) -> None:
    node(tmp_path, clock).settle("m", 10.0, FIRST)
    (file,) = (tmp_path / "drift").iterdir()
    for content in (b"", b"PK damaged", file.read_bytes()[:200]):
        file.write_bytes(content)
        fresh = node(tmp_path, clock)
        assert fresh.settle("m", 20.0, SECOND) is None
        assert fresh.settle("m", 30.0, FIRST) == SECOND


def test_a_folder_that_cannot_be_written_leaves_the_replica_its_own(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "drift").write_text("no folder")
    references = node(tmp_path, clock)
    assert references.settle("m", 10.0, FIRST) is None
    assert references.settle("m", 20.0, SECOND) == FIRST
    references.rebase()
    assert references.settle("m", 110.0, SECOND) is None


def test_a_board_that_is_away_stops_no_watch(tmp_path: Path, clock: Clock) -> None:
    class Away(OwnRebases):
        def read(self, model: str) -> float:
            raise RuntimeError("away")

    references = node(tmp_path, clock, Away())
    assert references.settle("m", 10.0, FIRST) is None
    assert references.settle("m", 20.0, SECOND) == FIRST
