from __future__ import annotations

from serving.placement.recently_seen import REMEMBERED_SECONDS, MemoryBoard, RecentlySeen, note_left
from tests.unit.serving.fakes import ManualClock


class CountedBoard(MemoryBoard):
    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, name: str, seconds: float) -> None:
        self.writes += 1
        super().write(name, seconds)


def test_one_that_came_after_the_loss_knows_it_as_well_as_one_that_saw_it() -> None:
    clock, board = ManualClock(), MemoryBoard()
    first = RecentlySeen(board, clock)
    assert first(["a", "b"]) == ["a", "b"]
    clock.advance(60)
    later = RecentlySeen(board, clock)
    for _ in range(3):
        assert later(["a"]) == first(["a"]) == ["a", "b"]
        clock.advance(240)


def test_what_is_gone_for_long_is_forgotten_by_all() -> None:
    clock, board = ManualClock(), MemoryBoard()
    first, later = RecentlySeen(board, clock), RecentlySeen(board, clock)
    first(["a", "b"])
    clock.advance(REMEMBERED_SECONDS + 1)
    assert later(["a"]) == first(["a"]) == ["a"]
    assert set(board.read()) == {"a"}


def test_what_is_there_is_remembered_from_when_it_was_last_there() -> None:
    clock, board = ManualClock(), MemoryBoard()
    seen = RecentlySeen(board, clock)
    for _ in range(100):
        seen(["a", "b"])
        clock.advance(15)
    clock.advance(REMEMBERED_SECONDS - 60)
    assert seen(["a"]) == ["a", "b"]


def test_one_that_left_on_purpose_is_not_missed() -> None:
    clock, board = ManualClock(), MemoryBoard()
    seen = RecentlySeen(board, clock)
    seen(["a", "b"])
    note_left(board, "b", clock())
    assert seen(["a"]) == ["a"]


def test_one_that_is_met_while_it_leaves_is_not_missed_either() -> None:
    clock, board = ManualClock(), MemoryBoard()
    clock.advance(1_000)
    seen = RecentlySeen(board, clock)
    seen(["a", "b"])
    note_left(board, "b", clock())
    assert seen(["a", "b"]) == ["a", "b"], "it is there"
    clock.advance(1)
    assert seen(["a"]) == ["a"]
    clock.advance(60)
    assert seen(["a"]) == ["a"]
    assert set(board.read()) == {"a"}


def test_one_that_stays_after_all_or_comes_back_is_missed_when_it_is_lost_later() -> None:
    clock, board = ManualClock(), MemoryBoard()
    clock.advance(1_000)
    seen = RecentlySeen(board, clock)
    note_left(board, "b", clock())
    for _ in range(5):
        assert seen(["b"]) == ["b"]
        clock.advance(10)
    assert seen([]) == ["b"]


def test_a_question_every_second_is_not_a_note_every_second() -> None:
    clock, board = ManualClock(), CountedBoard()
    seen = RecentlySeen(board, clock)
    for _ in range(60):
        seen(["a"])
        clock.advance(1)
    assert board.writes == 2
