import pytest

from serving.tuning.observer import WindowObserver


def test_a_window_holds_what_was_seen_in_it_and_nothing_of_the_one_before():
    observer = WindowObserver(100.0)
    for ttft in (0.1, 0.2, 0.3):
        observer.answered(ttft, 0.02, 40)
    observer.answered(None, None, 1)
    observer.sampled(4, 0)
    observer.sampled(8, 3)
    window = observer.close(105.0, intensity_grams_per_kwh=300.0)
    assert window.ttft_p95_seconds == pytest.approx(0.29)
    assert window.itl_p95_seconds == pytest.approx(0.02, rel=0.01)
    assert (window.tokens, window.tokens_per_second) == (121, pytest.approx(24.2))
    assert (window.running_mean, window.waiting_mean) == (6.0, 1.5)
    empty = observer.close(110.0)
    assert empty.ttft_p95_seconds is None
    assert (empty.tokens, empty.seconds, empty.running_mean) == (0, 5.0, 0.0)


def test_tokens_that_were_seen_as_they_came_count_one_by_one():
    observer = WindowObserver(0.0)
    observer.first_token(0.5)
    for gap in [0.01] * 90 + [0.3] * 10:
        observer.gaps.add(gap)
    window = observer.close(5.0)
    assert (window.ttft_p95_seconds, window.tokens) == (0.5, 101)
    assert window.itl_p95_seconds == pytest.approx(0.3, rel=0.01)


def test_a_window_that_was_given_up_leaves_nothing():
    observer = WindowObserver(0.0)
    observer.gaps.add(0.1)
    observer.reset(5.0)
    window = observer.close(6.0)
    assert (window.itl_p95_seconds, window.tokens, window.seconds) == (None, 0, 1.0)
