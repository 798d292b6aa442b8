from collections import deque

import pytest

from serving.tuning.packing import pack_prompts


def test_prompts_fill_the_room_first_come_first_served():
    prefilling = deque([[7, 0], [8, 0]])
    computed, cached = {7: 30, 8: 20}, {7: 0, 8: 100}
    tokens, pairs, done = pack_prompts(prefilling, 40, computed, cached)
    assert (tokens, done) == (40, [7])
    assert pairs == 30 * 31 / 2 + 10 * (100 + 11 / 2)
    assert list(prefilling) == [[8, 10]]
    tokens, pairs, done = pack_prompts(prefilling, 40, computed, cached)
    assert (tokens, done, len(prefilling)) == (10, [8], 0)
    assert pairs == pytest.approx(10 * (110 + 11 / 2))
