"""What an engine must reuse of a prompt: a rule that follows what it was sent before.

An engine whose layers all look at all tokens reuses the common prefix. One with sliding windows or a recurrent state can go on only where it has kept
a state, so reuse depends on where earlier prompts ended. Each session gives the rule of its engine as it runs; `measure/verify.py` asks
that rule and nothing else, and the preflight holds it against the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from coldprefix.job import common_prefix

GENERATED = -1  # stands for a token that the engine has generated: no prompt of ours goes on with it


class Promise(NamedTuple):
    """Tokens of a prompt that an engine reuses: at least and at most. Where the two differ, the count is a result."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"

    def holds(self, reused: int) -> bool:
        """Is this number of reused tokens what was promised?"""
        return self.least <= reused <= self.most


def exactly(tokens: int) -> Promise:
    """The promise of one number."""
    return Promise(tokens, tokens)


class Memory(ABC):
    """An engine's cache, as far as it decides what the next prompt reuses. A new one is empty.

    Attributes:
        borders: lengths in tokens where its rule bends: of a block, a window; the preflight tries both sides of them.
    """

    borders: tuple[int, ...] = ()

    @abstractmethod
    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        """What the engine reuses of this prompt, which it then keeps.

        Args:
            prompt: token ids, as the engine sees them.
            generated: tokens that it generates after them.
        """


class Nothing(Memory):
    """Caching is off."""

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        return exactly(0)


class AtMost(Memory):
    """No more than another rule says: what is reused is a result."""

    def __init__(self, rule: Memory) -> None:
        self._rule = rule
        self.borders = rule.borders

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        return Promise(0, self._rule.ask(prompt, generated).most)


class Either(Memory):
    """One of two rules, of which nobody knows which: from the lesser to the greater number."""

    def __init__(self, one: Memory, other: Memory) -> None:
        self._rules = one, other
        self.borders = one.borders

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        promises = [rule.ask(prompt, generated) for rule in self._rules]
        return Promise(min(promise.least for promise in promises), max(promise.most for promise in promises))


class Slot(Memory):
    """The last prompt, with what was generated after it, for all layers: the common prefix is reused, but the last token is computed."""

    def __init__(self) -> None:
        self.held: list[int] = []

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        reused = min(common_prefix(self.held, prompt), len(prompt) - 1)
        self.held = [*prompt, *[GENERATED] * (generated - 1)]  # the last token is not computed
        return exactly(reused)


class Pool(Memory):
    """Whole blocks of all earlier prompts, for all layers (vLLM; Kwon et al. 2023, "Efficient memory management for large language model
    serving with PagedAttention"). At least the last token is computed."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.borders = (block,)
        self.kept: set[tuple[int, ...]] = set()

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        reused = self.longest(prompt)
        self.keep(prompt)
        return exactly(reused)

    def longest(self, prompt: Sequence[int]) -> int:
        """Tokens of the longest prefix of whole blocks that is kept."""
        ends = range(self.block, len(prompt), self.block)
        return next((end - self.block for end in ends if tuple(prompt[:end]) not in self.kept), max(ends, default=0))

    def keep(self, prompt: Sequence[int]) -> None:
        """Keep all whole blocks of a prompt."""
        self.kept |= {tuple(prompt[:end]) for end in range(self.block, len(prompt) + 1, self.block)}
