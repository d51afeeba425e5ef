"""What vLLM reuses: whole blocks; of models with sliding windows or states only up to the boundaries that it keeps.

Source: vllm/v1/core/kv_cache_coordinator.py and single_type_kv_cache_manager.py; held against 576 answers of vLLM 0.32 in a lab.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coldprefix.engines.reuse import Memory, Nothing, Pool, Promise, exactly


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
    if in_force["layers"] == "full" or not in_force["hybrid_manager"]:
        return Pool(block)
    if interval == "all":
        return OpenPool(block) if in_force["layers"] == "states" else Pool(block)
    return SparsePool(block, interval)
