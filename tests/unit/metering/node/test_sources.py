"""A replica's batches: once each, in any order, with gaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.sources import MOST_AHEAD, Source


@given(st.permutations(list(range(1, 15))), st.lists(st.integers(1, 14), max_size=20))
def test_each_sequence_is_taken_once_in_any_order(order, repeats):
    source = Source("a", 0.0)
    assert all(source.take(sequence, float(sequence), 0.0) for sequence in order)
    assert not any(source.take(sequence, float(sequence), 0.0) for sequence in repeats)
    assert source.watermark_seconds == 14.0
    assert not source.missing


def test_a_batch_beyond_a_gap_does_not_move_the_watermark():
    source = Source("a", 0.0)
    source.take(1, 1.0, 0.0)
    source.take(3, 3.0, 0.0)
    assert source.watermark_seconds == 1.0
    source.take(2, 2.0, 0.0)
    assert source.watermark_seconds == 3.0


def test_a_gap_is_given_up_after_a_while_and_a_straggler_is_still_booked_once():
    source = Source("a", 0.0)
    source.take(1, 1.0, 0.0)
    source.take(5, 5.0, 1.0)
    source.give_up_gaps(2.0, patience_seconds=3.0)
    assert source.lost == 0
    source.give_up_gaps(4.0, patience_seconds=3.0)
    assert (source.lost, source.watermark_seconds) == (3, 5.0)
    assert source.take(3, 3.0, 5.0)
    assert not source.take(3, 3.0, 5.0)
    assert source.take(2, 2.0, 5.0)
    assert source.take(4, 2.0, 5.0)
    assert source.lost == 0
    assert not source.take(1, 1.0, 5.0)


def test_a_source_that_outlives_its_node_meter_goes_on_where_it_was():
    source = Source("a", 0.0)
    assert source.take(57, 9.0, 10.0)
    source.give_up_gaps(20.0, patience_seconds=5.0)
    assert source.watermark_seconds == 9.0
    assert source.take(58, 10.0, 20.0)
    assert source.watermark_seconds == 10.0


def test_a_source_has_left_once_all_before_its_last_batch_is_in_or_given_up():
    source = Source("a", 0.0)
    source.take(1, 1.0, 0.0)
    source.take(3, 3.0, 0.0, last=True)
    assert not source.left
    source.take(2, 2.0, 0.0)
    assert source.left
    gap = Source("b", 0.0)
    gap.take(2, 2.0, 0.0, last=True)
    gap.give_up_gaps(9.0, patience_seconds=5.0)
    assert gap.left
    assert gap.take(1, 1.0, 10.0)
    assert not gap.alive


def test_a_lost_batch_cannot_hold_memory_for_ever():
    source = Source("a", 0.0)
    for sequence in range(2, MOST_AHEAD + 10):
        source.take(sequence, float(sequence), 0.0)
    assert source.lost == 1
    assert source.watermark_seconds == float(MOST_AHEAD + 9)


def test_sequences_count_from_one():
    with pytest.raises(ValueError, match="1 or more"):
        Source("a", 0.0).take(0, 0.0, 0.0)


def test_what_another_meter_was_sent_is_not_lost_and_is_booked_once_where_it_comes_yet():
    source = Source("a", 0.0)
    source.resume(57)
    assert source.take(57, 9.0, 0.0)
    assert (source.missing, source.watermark_seconds) == (False, 9.0)
    assert source.take(56, 8.0, 0.0)
    assert not source.take(56, 8.0, 0.0)
    source.take(59, 11.0, 1.0)
    source.give_up_gaps(9.0, patience_seconds=5.0)
    assert source.lost == 1
    assert source.take(58, 10.0, 9.0)
    assert source.lost == 0
