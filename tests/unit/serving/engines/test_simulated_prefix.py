from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.engines.simulated_prefix import BLOCK_TOKENS, PrefixCache

TOKENS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=80)


def words(count: int, start: int = 0) -> list[str]:
    return [f"w{number}" for number in range(start, start + count)]


def test_whole_blocks_of_an_equal_beginning_are_reused() -> None:
    cache = PrefixCache(1000)
    cache.keep(words(40))
    assert cache.reuse([*words(40), "more"]) == 2 * BLOCK_TOKENS
    assert cache.reuse(["other", *words(40)]) == 0


def test_one_token_is_always_computed() -> None:
    cache = PrefixCache(1000)
    cache.keep(words(32))
    assert cache.reuse(words(32)) == BLOCK_TOKENS


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    cache = PrefixCache(3 * BLOCK_TOKENS)
    cache.keep(words(16))
    cache.keep(words(32, start=100))
    cache.reuse(words(17))
    cache.keep(words(16, start=500))
    assert cache.reuse(words(17)) == BLOCK_TOKENS
    assert cache.reuse(words(17, start=100)) == 0


def test_without_capacity_nothing_is_kept() -> None:
    cache = PrefixCache(0)
    cache.keep(words(64))
    assert cache.reuse(words(64)) == 0


@given(TOKENS, TOKENS)
def test_reuse_never_exceeds_the_common_beginning(kept: list[str], asked: list[str]) -> None:
    cache = PrefixCache(10_000)
    cache.keep(kept)
    same = 0
    for one, other in zip(kept, asked, strict=False):
        if one != other:
            break
        same += 1
    reused = cache.reuse(asked)
    assert reused <= same
    assert reused < len(asked) or not asked
    assert reused % BLOCK_TOKENS == 0
