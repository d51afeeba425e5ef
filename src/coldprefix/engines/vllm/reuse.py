"""What vLLM reuses: whole blocks; of models with sliding windows or states only up to the boundaries that it keeps.

Source: vllm/v1/core/kv_cache_coordinator.py and single_type_kv_cache_manager.py; held against 576 answers of vLLM 0.32 in a lab.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from coldprefix.engines.reuse import GENERATED, AtMost, Memory, Nothing, Pool, Promise, exactly


class FreeQueue(Memory):
    """Whole blocks of earlier prompts, for all layers, in a pool of ``blocks``: until another prompt needs the room.

    Free blocks stand in a queue, cached or not, and a prompt takes what it lacks from the front. When it is done its blocks go to the end,
    the last ones of the prompt first, so a prefix that nobody asks for is lost from its tail; a block that is not full, which nothing can
    match, goes to the front. Block 0 is never given out. (v1/core/block_pool.py: get_new_blocks, touch, free_blocks.)
    """

    def __init__(self, block: int, blocks: int) -> None:
        self.block = block
        self.borders = (block,)
        self._free = OrderedDict.fromkeys(range(1, blocks))
        self._holds: dict[int, tuple[int, ...]] = {}  # block: the prompt up to its end
        self._found: dict[tuple[int, ...], list[int]] = {}  # the reverse; what is computed twice is held twice

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        everything = [*prompt, *[GENERATED] * (generated - 1)]
        hit: list[int] = []
        for end in range(self.block, len(prompt), self.block):
            held = self._found.get(tuple(prompt[:end]))
            if not held:
                break
            hit.append(held[0])
        for block in hit:
            del self._free[block]
        lacking = -(-len(everything) // self.block) - len(hit)
        new = [self._free.popitem(last=False)[0] for _ in range(min(lacking, len(self._free)))]
        for block in new:
            self._evict(block)
        for block, end in zip(new, range((len(hit) + 1) * self.block, len(everything) + 1, self.block), strict=False):
            self._holds[block] = tuple(everything[:end])
            self._found.setdefault(self._holds[block], []).append(block)
        for block in [*reversed(new), *reversed(hit)]:
            self._free[block] = None
            if block not in self._holds:
                self._free.move_to_end(block, last=False)
        return exactly(len(hit) * self.block)

    def _evict(self, block: int) -> None:
        held = self._holds.pop(block, None)
        if held is not None:
            self._found[held].remove(block)


class SparsePool(Pool):
    """Full attention keeps every block, the groups of windows and states (with prefix_cache_retention_interval 0, the default) only what
    leads up to

    - the last block boundary of each prompt before its last token, from which its own repetition would go on;
    - a junction: the boundary up to which a prompt shared blocks that it could not use, so that the second one with that prefix can;
    - every multiple of the interval, if there is one.

    A prompt goes on where the last ``window`` tokens, or all from the start, are kept. So of a prompt that is not longer than a window every
    block is kept. (SlidingWindowManager.reachable_block_mask, find_longest_cache_hit.)

    Args:
        window: tokens that a sliding window looks back over; 0: a state, which stands for all before it.
        interval: of retention, in tokens; 0: none.
    """

    def __init__(self, block: int, window: int = 0, interval: int = 0) -> None:
        super().__init__(block)
        self._run = max(1, -(-(window - 1) // block))  # blocks in a row that a prompt goes on from
        self.borders = (block, self._run * block) if window else (block,)
        self._interval = interval
        self._sparse: set[tuple[int, ...]] = set()  # prompts up to the end of a block that windows and states keep

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        shared = self.longest(prompt)
        reused = next((end for end in range(shared, 0, -self.block) if self._goes_on(prompt, end)), 0)
        self.keep(prompt)
        ends = {(len(prompt) - 1) // self.block * self.block, shared if shared > reused else 0}
        if self._interval:
            ends |= set(range(self._interval, len(prompt) + 1, self._interval))
        for last in ends:  # what is reused was kept before
            first = max(reused, last - self._run * self.block)
            self._sparse |= {tuple(prompt[:end]) for end in range(first + self.block, last + 1, self.block)}
        return exactly(reused)

    def _goes_on(self, prompt: Sequence[int], last: int) -> bool:
        """Are the blocks kept that a window, or a state, needs at this boundary?"""
        first = max(0, last - self._run * self.block)
        return all(tuple(prompt[:end]) in self._sparse for end in range(first + self.block, last + 1, self.block))


class OpenPool(Pool):
    """States that are kept wherever a step of the scheduler ends on a block's boundary: what is reused is a result."""

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        return Promise(0, super().ask(prompt, generated).most)


def memory_of(in_force: Mapping[str, Any]) -> Memory:
    """The rule of a vLLM with these settings in force (arguments.py)."""
    block, interval = in_force["block_tokens"], in_force["retention_tokens"]
    if not in_force["prefix_caching"]:
        return Nothing()
    if in_force["layers"] == "full":
        return FreeQueue(block, in_force["blocks"])
    if not in_force["hybrid_manager"]:
        rule: Memory = Pool(block)
    elif interval == "all":
        rule = OpenPool(block) if in_force["layers"] == "states" else Pool(block)
    else:
        rule = SparsePool(block, in_force["window"] if in_force["layers"] == "window" else 0, interval)
    # Groups of windows and states take blocks of their own from a pool, and how many is not followed here.
    return rule if in_force["pool_blocks"] == "auto" else AtMost(rule)
