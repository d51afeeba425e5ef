"""The rules of reuse against what engines were seen to reuse: prompts of 1,000 tokens, continued and edited, on small models of each kind."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from coldprefix.engines.llamacpp.reuse import AllOrNothing, CheckpointSlot, MovingSlot
from coldprefix.engines.reuse import AtMost, Memory, Nothing, Pool, Promise, Slot
from coldprefix.engines.vllm.reuse import FreeQueue, OpenPool, SparsePool, memory_of

Prompt = list[int]
CONTEXT, BATCH, UBATCH = 8192, 2048, 512


def fresh(chance: random.Random, tokens: int) -> Prompt:
    return [chance.randrange(300, 50_000) for _ in range(tokens)]


def edits(w: Prompt, chance: random.Random) -> dict[str, Prompt]:
    n = len(w)
    a, b, c, d = (n * share // 100 for share in (20, 40, 60, 80))
    changed = {share: [*w[: n * share // 100], 7, *w[n * share // 100 + 1 :]] for share in (10, 50, 90)}
    return {
        "repeat": w,
        "append": w + fresh(chance, 24),
        "10%": changed[10],
        "50%": changed[50],
        "90%": changed[90],
        "insert": w[: n // 2] + fresh(chance, 16) + w[n // 2 :],
        "delete": w[: n // 2] + w[n // 2 + 16 :],
        "drop half": w[n // 2 :],
        "truncate": w[: n // 2],
        "swap": w[:a] + w[c:d] + w[b:c] + w[a:b] + w[d:],
    }


def server(window: int, checkpoints: int = 32, ubatch: int = UBATCH, moves: int = 0) -> Callable[[], Memory]:
    return lambda: CheckpointSlot(window, CONTEXT, BATCH, ubatch, checkpoints, moves)


# What was seen of W = 1,000 tokens, the edited prompt, and W again (llama.cpp 0c1e570, vLLM 0.32).
SEEN: dict[str, tuple[Callable[[], Memory], list[int], list[int]]] = {
    "full attention": (
        Slot,
        [999, 1000, 100, 500, 900, 500, 500, 0, 499, 200],
        [999, 999, 100, 500, 900, 500, 500, 0, 500, 200],
    ),
    "llama-server, window 512": (
        server(512),
        [999, 1000, 0, 483, 900, 483, 483, 0, 483, 0],
        [999, 999, 0, 483, 900, 499, 482, 0, 495, 0],
    ),
    "llama-server, window 128": (
        server(128),
        [999, 1000, 0, 500, 900, 500, 500, 0, 499, 0],
        [999, 999, 0, 499, 900, 499, 499, 0, 500, 0],
    ),
    "llama-server, states": (
        server(0),
        [996, 1000, 0, 484, 484, 484, 484, 0, 484, 0],
        [996, 996, 0, 484, 484, 500, 484, 0, 496, 0],
    ),
    "llama-cpp-python, states": (
        AllOrNothing,
        [0, 1000, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ),
    "vLLM, full attention": (lambda: FreeQueue(128, 227), [896, 896, 0, 384, 896, 384, 384, 0, 384, 128], [896] * 10),
    "vLLM, windows as full attention": (lambda: Pool(128), [896, 896, 0, 384, 896, 384, 384, 0, 384, 128], [896] * 10),
    "vLLM, windows or states": (lambda: SparsePool(128), [896, 896, 0, 0, 896, 0, 0, 0, 0, 0], [896] * 10),
    "vLLM, windows of 512": (lambda: SparsePool(128, 512), [896, 896, 0, 0, 896, 0, 0, 0, 0, 0], [896] * 10),
    "vLLM, windows, blocks of 32": (lambda: SparsePool(32), [992, 992, 0, 0, 0, 0, 0, 0, 0, 0], [992] * 10),
    "vLLM, windows, kept at each block": (
        lambda: SparsePool(128, interval=128),
        [896, 896, 0, 384, 896, 384, 384, 0, 384, 128],
        [896] * 10,
    ),
}


@pytest.mark.parametrize("kind", SEEN)
def test_a_rule_says_what_was_seen(kind: str) -> None:
    make, query, rewarm = SEEN[kind]
    found: tuple[list[int], list[int]] = [], []
    for name in edits(fresh(random.Random(1), 1000), random.Random(2)):
        chance = random.Random(3)
        w = fresh(chance, 1000)
        memory = make()
        assert memory.ask(w, 1) == Promise(0, 0), "nothing is known yet"
        for prompt, generated, kept in ((edits(w, chance)[name], 16, found[0]), (w, 1, found[1])):
            promise = memory.ask(prompt, generated)
            assert promise.least == promise.most
            kept.append(promise.least)
    assert found == (query, rewarm)


@pytest.mark.parametrize(
    ("memory", "seen"),
    [
        (Pool(128), [0, 2944, 2816, 2688, 1920, 896, 896]),
        (SparsePool(128), [0, 2944, 0, 0, 0, 0, 896]),
    ],
)
def test_an_edit_that_comes_a_second_time_finds_what_the_first_one_has_left(memory: Memory, seen: list[int]) -> None:
    chance = random.Random(3)
    w = fresh(chance, 3000)
    prompts = [w, *([*w[:place], *fresh(chance, 1), *w[place + 1 :]] for place in (2990, 2900, 2700, 2000, 1000, 1000))]
    assert [memory.ask(prompt, 1).least for prompt in prompts] == seen


@pytest.mark.parametrize(
    ("window", "tokens", "place", "seen"),
    [  # of a new prompt, an edit, the same edit again, and the first prompt with 24 more (vLLM 0.32, CPU build, Gemma 3 and gpt-oss)
        (512, 263, 131, [0, 128, 128, 256]),
        (512, 400, 80, [0, 0, 0, 384]),
        (512, 520, 390, [0, 384, 384, 512]),
        (512, 640, 128, [0, 128, 128, 512]),
        (512, 640, 480, [0, 384, 384, 512]),
        (512, 700, 140, [0, 0, 128, 640]),
        (512, 700, 525, [0, 0, 512, 640]),
        (512, 1000, 750, [0, 0, 640, 896]),
        (128, 263, 131, [0, 0, 128, 256]),
        (128, 400, 300, [0, 0, 256, 384]),
        (128, 640, 128, [0, 0, 128, 512]),
    ],
)
def test_a_prompt_within_a_window_is_kept_whole(window: int, tokens: int, place: int, seen: list[int]) -> None:
    chance = random.Random(8)
    w = fresh(chance, tokens)
    edited = ([*w[:place], *fresh(chance, 1), *w[place + 1 :]] for _ in range(2))
    memory = SparsePool(128, window)
    assert [memory.ask(prompt, 1).least for prompt in (w, *edited, w + fresh(chance, 24))] == seen


def test_a_trial_of_the_study_on_window_models() -> None:
    """Query and stream of one trial reuse different amounts on vLLM; llama-server keeps no checkpoint inside a long prompt."""

    def trial(memory: Memory, edited: bool) -> list[int]:
        chance = random.Random(4)
        a, b, q = (fresh(chance, n) for n in (512, 256, 24))
        first, second = ([*a, *fresh(chance, 256), *q] if edited else [*a, *b, *fresh(chance, 24)] for _ in range(2))
        return [memory.ask(prompt, 1).least for prompt in (a + b, first, a + b, second)]

    assert trial(SparsePool(128), False) == [0, 640, 640, 768]
    assert trial(SparsePool(128), True) == [0, 0, 640, 512]
    assert trial(SparsePool(128, 512), False) == [0, 640, 640, 768]
    assert trial(SparsePool(128, 512), True) == [0, 0, 640, 512]
    assert trial(server(512)(), True)[:3] == [0, 251, 275]
    assert trial(server(1024)(), False)[:3] == [0, 763, 762]
    assert trial(server(1024)(), True)[:3] == [0, 251, 275]
    assert trial(server(0)(), False)[:3] == [0, 768, 764]
    assert trial(server(0)(), True)[:3] == [0, 252, 276]


def test_without_checkpoints_a_state_survives_an_append_only() -> None:
    w = fresh(random.Random(5), 1000)
    for checkpoints, repeat in ((32, 996), (1, 996), (0, 0)):
        memory = server(0, checkpoints)()
        memory.ask(w, 1)
        assert memory.ask(w, 1).least == repeat
    memory = server(0, 0)()
    memory.ask(w, 1)
    assert memory.ask([*w, 5, 6], 1).least == 1000
    small = server(0, ubatch=64)()
    small.ask(w, 1)
    assert small.ask([*w[:950], *fresh(random.Random(6), 50)], 1).least == 932


def test_moved_runs_recover_deletions_and_never_insertions() -> None:
    chance = random.Random(7)
    w = fresh(chance, 1000)
    seen = {"delete": 983, "drop half": 499, "swap": 400, "insert": 500, "50%": 500}
    for name, reused in seen.items():
        memory = MovingSlot(64)
        memory.ask(w, 1)
        assert memory.ask(edits(w, chance)[name], 1).least == reused, name
    state = server(0, moves=64)()
    state.ask(w, 1)
    assert state.ask(w[500:], 1).least == 484, "and wrongly: the checkpoint is of other tokens"


def test_what_was_generated_is_held_but_for_the_last_token() -> None:
    slot = Slot()
    slot.ask([1, 2, 3], 1)
    assert slot.ask([1, 2, 3, 4], 5).least == 3 and len(slot.held) == 8
    everything = AllOrNothing()
    everything.ask([1, 2, 3], 2)
    assert everything.ask([1, 2, 3, 4], 1).least == 0, "a token that was generated stands behind the prompt"


@pytest.mark.parametrize(
    ("in_force", "kind"),
    [
        ({"prefix_caching": False}, Nothing),
        ({}, FreeQueue),
        ({"layers": "window"}, SparsePool),
        ({"layers": "states"}, SparsePool),
        ({"layers": "window", "hybrid_manager": False}, Pool),
        ({"layers": "window", "retention_tokens": "all"}, Pool),
        ({"layers": "states", "retention_tokens": "all"}, OpenPool),
        ({"layers": "window", "pool_blocks": 64}, AtMost),
    ],
)
def test_the_rule_of_vllm_follows_from_what_is_in_force(in_force: dict[str, object], kind: type[Memory]) -> None:
    told = {"prefix_caching": True, "block_tokens": 128, "layers": "full", "hybrid_manager": True, "retention_tokens": 0, "blocks": 227}
    told |= {"pool_blocks": "auto", "window": 512} | in_force
    assert type(memory_of(told)) is kind
