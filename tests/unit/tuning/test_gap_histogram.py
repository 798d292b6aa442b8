import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.tuning.gap_histogram import GapHistogram


@given(gaps=st.lists(st.floats(2e-5, 200.0), min_size=1, max_size=200), percent=st.sampled_from([50, 95, 99]))
def test_a_percentile_is_that_of_the_gaps_to_one_percent(gaps, percent):
    histogram = GapHistogram()
    for gap in gaps:
        histogram.add(gap)
    exact = np.percentile(gaps, percent, method="inverted_cdf")
    assert histogram.percentile(percent) == pytest.approx(exact, rel=0.0101)


def test_gaps_of_no_time_or_of_hours_are_counted_at_the_ends():
    histogram = GapHistogram()
    assert histogram.percentile(95) is None
    histogram.add_many(0.0, 10)
    assert histogram.percentile(95) < 2e-5
    histogram.add_many(1e9, 89)
    histogram.add(1e9)
    assert histogram.percentile(95) == pytest.approx(200, rel=0.01)
