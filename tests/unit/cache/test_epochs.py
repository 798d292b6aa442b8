from __future__ import annotations

from cache.epochs import EpochBook
from cache.identity import Epochs, Scopes

MINE, OTHER = Scopes("m", "a"), Scopes("n", "b")


def test_unknown_scopes_are_at_zero_and_not_recent() -> None:
    book = EpochBook(check_seconds=1.0)
    assert book.known(MINE) == Epochs()
    assert not book.recent(MINE, 0.0)


def test_what_was_read_is_known_and_recent_for_a_while() -> None:
    book = EpochBook(check_seconds=1.0)
    assert book.learn(MINE, Epochs(1, 2, 3, 0), 10.0) == (Epochs(1, 2, 3, 0), False)
    assert book.known(MINE) == Epochs(1, 2, 3, 0)
    assert [book.recent(MINE, now) for now in (10.9, 11.0)] == [True, False]


def test_the_epoch_of_all_is_shared_and_the_others_are_not() -> None:
    book = EpochBook(check_seconds=1.0)
    book.learn(MINE, Epochs(4, 2, 3, 0), 10.0)
    assert book.known(OTHER) == Epochs(4, 0, 0, 0)
    assert not book.recent(OTHER, 10.0)


def test_it_never_goes_back() -> None:
    book = EpochBook(check_seconds=1.0)
    book.learn(MINE, Epochs(4, 2, 3, 1), 10.0)
    assert book.learn(MINE, Epochs(), 11.0) == (Epochs(4, 2, 3, 1), False)


def test_a_removal_elsewhere_empties_process_memory_once() -> None:
    book = EpochBook(check_seconds=1.0)
    assert book.learn(MINE, Epochs(local=1), 10.0)[1] is True
    assert book.learn(OTHER, Epochs(local=1), 10.0)[1] is False


def test_after_an_invalidation_everything_is_asked_again() -> None:
    book = EpochBook(check_seconds=1.0)
    book.learn(MINE, Epochs(), 10.0)
    book.forget_checks()
    assert not book.recent(MINE, 10.0)


def test_it_is_bounded() -> None:
    book = EpochBook(check_seconds=1.0, scopes=2)
    for name in "abc":
        book.learn(Scopes("m", name), Epochs(0, 0, 1), 10.0)
    assert [book.recent(Scopes("m", name), 10.0) for name in "abc"] == [False, True, True]
