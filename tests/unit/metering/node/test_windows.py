"""Intervals cut at the ends of windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.windows import Span, Window, union_seconds

moments = st.floats(0, 100)


@given(
    bounds=st.lists(st.floats(0.1, 10), min_size=1, max_size=10), start=moments, length=st.floats(0, 50), first=moments
)
def test_fractions_of_a_span_add_up_to_one_over_the_windows(bounds, start, length, first):
    span = Span.of(start, start + length, first)
    edge, fractions = first, []
    for width in [*bounds, 300.0]:
        window = Window(edge, edge + width)
        edge += width
        taken = span.take(window)
        if taken is not None:
            fractions.append(taken[0])
        if span.spent(window):
            break
    assert sum(fractions) == pytest.approx(1.0)


def test_late_work_keeps_its_weight_and_claims_no_time_that_has_passed():
    span = Span.of(1.0, 2.0, first_open_seconds=5.0)
    assert span.take(Window(5.0, 6.0)) == (1.0, None)
    assert span.spent(Window(5.0, 6.0))


@given(st.lists(st.tuples(moments, moments).map(lambda pair: (min(pair), max(pair))), max_size=20))
def test_a_union_is_between_the_longest_and_the_sum(intervals):
    union = union_seconds(intervals)
    lengths = [end - start for start, end in intervals]
    assert union <= sum(lengths) + 1e-6
    assert union >= max(lengths, default=0.0) - 1e-9
