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
    """Full attention keeps every block, the groups of windows and states (with prefix_cache_retention_interval 0, the default) only

    - the last block boundary of each prompt before its last token, from which its own repetition would go on;
    - a junction: the boundary up to which a prompt shared blocks that it could not use, so that the second one with that prefix can;
    - every multiple of the interval, if there is one.
    """

    def __init__(self, block: int, interval: int = 0) -> None:
        super().__init__(block)
        self._interval = interval
        self._states: set[tuple[int, ...]] = set()

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        shared = self.longest(prompt)
        reused = next((end for end in range(shared, 0, -self.block) if tuple(prompt[:end]) in self._states), 0)
        self.keep(prompt)
        self._states.add(tuple(prompt[: (len(prompt) - 1) // self.block * self.block]))
        if shared > reused:
            self._states.add(tuple(prompt[:shared]))
        if self._interval:
            self._states |= {tuple(prompt[:end]) for end in range(self._interval, len(prompt) + 1, self._interval)}
        return exactly(reused)


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
        rule = SparsePool(block, interval)
    # Groups of windows and states take blocks of their own from a pool, and how many is not followed here.
    return rule if in_force["pool_blocks"] == "auto" else AtMost(rule)
