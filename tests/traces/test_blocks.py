"""Shared prefixes and caches, held against slow ones that cannot be wrong."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coldprefix.job import common_prefix
from coldprefix.traces.blocks import Known, Lru, chained, keys_of, whole
from coldprefix.traces.tree import Tree

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=25)


@settings(deadline=None, max_examples=60)
@given(PROMPTS)
def test_the_tree_finds_the_longest_prefix_and_the_latest_that_has_it(prompts: list[list[int]]) -> None:
    tree = Tree()
    for number, prompt in enumerate(prompts):
        shared = [common_prefix(prompt, other) for other in prompts[:number]]
        longest = max(shared, default=0)
        latest = max((i for i, length in enumerate(shared) if length == longest), default=None) if longest else None
        assert tree.add(np.array(prompt, np.int32), number) == (longest, latest)


@settings(deadline=None, max_examples=40)
@given(PROMPTS, st.integers(1, 8))
def test_a_limited_cache_keeps_what_was_used_last(prompts: list[list[int]], most: int) -> None:
    cache, kept = Lru(most), list[tuple[int, ...]]()  # the last one is the one that was used last
    for prompt in prompts:
        prefixes = [tuple(prompt[:end]) for end in range(1, len(prompt) + 1)]
        known = next((i for i, prefix in enumerate(prefixes) if prefix not in kept), len(prefixes))
        assert cache.ask(chained(prompt)) == known
        for prefix in reversed(prefixes):
            kept = [*[other for other in kept if other != prefix], prefix]
        kept = kept[-most:]


def test_a_block_counts_with_all_that_is_before_it() -> None:
    one, other = chained([1, 2, 3]), chained([9, 2, 3])
    assert not set(one) & set(other) and chained([1, 2, 4])[:2] == one[:2]
    ids = np.arange(40, dtype=np.int32)
    assert len(keys_of(ids, 16)) == 2 and keys_of(ids[:32], 16) == keys_of(ids, 16)
    assert keys_of(ids[1:], 16)[0] != keys_of(ids, 16)[0]


def test_at_least_the_last_token_is_computed() -> None:
    assert [whole(9, tokens, 16) for tokens in (15, 16, 17, 32, 33)] == [0, 0, 16, 16, 32]
    assert whole(1, 1000, 16) == 16


def test_the_bounded_memory_keeps_the_last_half_and_says_when_it_forgets() -> None:
    known = Known(most=8)
    for key in range(4):
        known.put(key, key)
    assert not known.forgot and [known.get(key) for key in range(4)] == [0, 1, 2, 3]
    for key in range(4, 100):
        known.put(key, key)
        assert all(known.get(near) == near for near in range(max(0, key - 3), key + 1))
        assert len(known._young) + len(known._old) <= 8
    assert known.forgot and known.get(0) is None
    known.put(98, 7)
    assert known.get(98) == 7
