import numpy as np

from serving.tuning.replica_cache import ReplicaCache
from serving.tuning.workload import Workload


def workload(repeats, prefixes=None, prompt=100, output=10):
    count = len(repeats)
    column = lambda value: np.full(count, value)  # noqa: E731
    prefix = column(0) if prefixes is None else np.array(prefixes)
    return Workload(np.zeros(count), column(prompt), column(output), prefix, np.array(repeats))


def admitted(asked, kv_tokens=None, mine=None):
    mine = np.arange(len(asked)) if mine is None else np.array(mine)
    cache = ReplicaCache(asked, mine, kv_tokens)
    return [cache.admit(position, 100, 10) for position in range(len(mine))]


def test_a_repeat_computes_its_last_token_where_the_original_ran_and_all_of_it_elsewhere():
    asked = workload([-1, 0, 0, -1, 0])
    assert admitted(asked) == [100, 1, 1, 100, 1]
    # the original ran on another replica: here the first of its repeats is the one that is computed
    assert admitted(asked, mine=[1, 3, 4]) == [100, 100, 1]


def test_what_was_not_used_for_as_many_tokens_as_fit_is_forgotten():
    asked = workload([-1, 0, -1, -1, -1, 0, 0])
    # 330 tokens of three others, and its own 100, are more than 400, and fit 430
    assert admitted(asked, 400) == [100, 1, 100, 100, 100, 100, 1]
    assert admitted(asked, 430) == [100, 1, 100, 100, 100, 1, 1]


def test_a_shared_prefix_is_computed_once_on_each_replica_and_again_after_it_was_evicted():
    asked = workload([-1] * 6, prefixes=[60, 40, 0, 0, 60, 60])
    assert admitted(asked) == [100, 60, 100, 100, 40, 40]
    assert admitted(asked, 250) == [100, 60, 100, 100, 100, 40]


def test_a_workload_without_repeats_or_prefixes_needs_no_cache():
    assert not ReplicaCache.needed(workload([-1, -1]))
    assert ReplicaCache.needed(workload([-1, 0]))
    assert ReplicaCache.needed(workload([-1], prefixes=[5]))
