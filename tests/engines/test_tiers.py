"""When a prefix is gone: vLLM's queue of free blocks, llama-server's slots and its host-memory tier."""

from __future__ import annotations

import itertools

import pytest

from coldprefix.engines.llamacpp.reuse import memory_of
from coldprefix.engines.llamacpp.tiers import AnyEarlier, Slots, with_tier
from coldprefix.engines.reuse import AtMost, Either, Memory, Promise, Slot
from coldprefix.engines.vllm.reuse import FreeQueue

Prompt = list[int]
NEW = itertools.count(1000)
W, Q = [next(NEW) for _ in range(512)], [next(NEW) for _ in range(24)]
SERVER = {"prompt_cache": True, "window_tokens": 0, "recurrent": False, "cache_reuse": 0, "kv_unified": False, "kv_bytes_per_token": 1024}


def new(tokens: int) -> Prompt:
    return [next(NEW) for _ in range(tokens)]


def after(memory: Memory, foreign: int, size: int = 128) -> Promise:
    """What the rule says of W with a question, after W and so many tokens of other prompts."""
    assert memory.ask(W, 1) == Promise(0, 0)
    for _ in range(foreign // size):
        assert memory.ask(new(size), 1).most == 0
    return memory.ask(W + Q, 1)


@pytest.mark.parametrize(
    ("foreign", "reused"),
    [(0, 512), (1408, 512), (1536, 480), (1664, 352), (1792, 224), (1920, 96), (2048, 0)],
)
def test_a_pool_loses_a_prefix_from_its_tail(foreign: int, reused: int) -> None:
    """63 blocks of 32 tokens, 16 of them with W: 47 others come first, then W's last one."""
    assert after(FreeQueue(32, 64), foreign) == Promise(reused, reused)


def test_a_block_that_is_not_full_goes_first_whatever_stands_in_the_queue() -> None:
    pool = FreeQueue(32, 8)
    pool.ask(W[:70], 1)  # two blocks and six tokens
    for _ in range(20):
        pool.ask(new(6), 1)
    assert pool.ask(W[:70], 1).least == 64, "twenty short prompts took one and the same block"
    for _ in range(5):
        pool.ask(new(32), 1)
    assert pool.ask(W[:70], 1).least == 64, "five whole ones took those behind it"
    for _ in range(6):
        pool.ask(new(32), 1)
    assert pool.ask(W[:70], 1).least == 32, "the sixth takes its tail"


def test_what_is_asked_for_again_is_safe_for_longer() -> None:
    pool = FreeQueue(32, 64)
    pool.ask(W, 1)
    for _ in range(40):
        pool.ask(new(128), 1)
        assert pool.ask(W + new(8), 1).least == 512


@pytest.mark.parametrize(("foreign", "reused"), [(0, 512), (384, 512), (512, 0)])
def test_of_four_slots_the_fourth_other_prompt_takes_all(foreign: int, reused: int) -> None:
    assert after(Slots(4), foreign) == Promise(reused, reused)


def test_a_slot_whose_content_is_like_the_prompt_is_taken_before_an_older_one() -> None:
    slots = Slots(2)
    slots.ask(W, 1)
    slots.ask(other := new(128), 1)
    assert slots.ask(W[:60] + new(400), 1).least == 60, "60 of 460 tokens are more than a tenth"
    assert slots.ask(other + Q, 1).least == 128
    assert slots.ask(W, 1).least == 60, "what stood behind them is gone"
    slots = Slots(2)
    slots.ask(W, 1)
    slots.ask(new(128), 1)
    assert slots.ask(W[:40] + new(400), 1).least == 40, "the oldest slot, for its age"
    assert slots.ask(new(9), 1).least == 0 and slots.ask(W[:40] + new(400), 1).least == 40


@pytest.mark.parametrize(("foreign", "reused"), [(0, 512), (128, 512), (1408, 512), (1536, 0), (2048, 0)])
def test_a_tier_of_2_mib_loses_the_oldest_prompt_whole(foreign: int, reused: int) -> None:
    assert after(with_tier(2, 1024), foreign) == Promise(reused, reused)


def test_where_the_sizes_are_not_known_well_enough_the_rule_gives_a_range() -> None:
    """Twelve prompts of 128 tokens and W are 2048 tokens: at 1012 bytes each with their 12 exactly 2 MiB."""
    assert after(with_tier(2, 1012), 1536) == Promise(0, 512)


def test_a_tier_keeps_no_prompt_twice_and_gives_up_what_it_restores() -> None:
    tier = with_tier(4, 1024)
    for prompt in (W, new(128), W + Q, new(128)):
        tier.ask(prompt, 1)
    assert tier.ask(W + Q + new(9), 1).least == 536, "the longer one has taken the place of the shorter"
    tier.ask(new(900), 1)
    assert tier.ask(W[:100] + new(9), 1) == Promise(0, 0), "a fifth of a saved prompt is not worth its room"
    tier.ask(new(64), 1)
    assert tier.ask(W[:200] + new(9), 1).least == 200, "two fifths are"


def test_a_prompt_that_is_larger_than_the_tier_is_not_saved() -> None:
    tier = with_tier(1, 4096)
    tier.ask(W, 1)
    tier.ask(new(128), 1)
    assert tier.ask(W, 1) == Promise(0, 0)


@pytest.mark.parametrize(
    ("in_force", "kind"),
    [
        ({"slots": 1, "host_cache_mib": 0}, Slot),
        ({"slots": 4, "host_cache_mib": 0}, Slots),
        ({"slots": 1, "host_cache_mib": 64}, Either),
        ({"slots": 4, "host_cache_mib": 64}, AtMost),
        ({"slots": 4, "host_cache_mib": 0, "kv_unified": True}, AtMost),
        ({"slots": 1, "host_cache_mib": 64, "recurrent": True}, AtMost),
    ],
)
def test_the_rule_of_llama_server_follows_from_its_slots_and_its_tier(in_force: dict[str, object], kind: type[Memory]) -> None:
    assert type(memory_of(SERVER | in_force, "http")) is kind


def test_where_nothing_is_followed_no_more_is_promised_than_is_in_common() -> None:
    memory = AtMost(AnyEarlier())
    memory.ask(W, 1)
    memory.ask(new(9), 1)
    assert memory.ask(W + Q, 1) == Promise(0, 512) and memory.ask(new(9), 1) == Promise(0, 0)
