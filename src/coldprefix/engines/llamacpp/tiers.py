"""What llama-server reuses where it has several slots, or a host-memory tier behind one: which slot a prompt gets, and what is kept of the
others.

Source: tools/server/server-context.cpp (get_available_slot) and server-task.cpp (server_prompt_cache).
"""

from __future__ import annotations

from collections.abc import Sequence

from coldprefix.engines.reuse import GENERATED, Either, Memory, Promise, exactly
from coldprefix.job import common_prefix

SIMILAR = 10  # a slot is chosen for its content if it has more than one token in so many of the prompt (--slot-prompt-similarity 0.1)
KEEPS = 0.25  # share of a saved prompt that must be of use, else it stays where it is
LOSES = 0.5  # a slot that keeps a smaller share of its content than this is saved first
CELL_BYTES = 12  # of a saved token, beside its keys and values: position, number of sequences, sequence
HEAD_BYTES = 5000  # of a saved prompt, at most: types and row sizes for each layer
ROUNDED = 0.006  # the log gives a cache's size in hundredths of MiB: by so much of its size it may be another one


class HostTier:
    """Prompts that slots have lost, in host memory: the oldest goes when there is no room (--cache-ram)."""

    def __init__(self, limit: float, per_token: float, per_prompt: float) -> None:
        """Sizes in bytes."""
        self._limit, self._per_token, self._per_prompt = limit, per_token, per_prompt
        self._saved: list[list[int]] = []

    def _bytes(self, prompts: list[list[int]]) -> float:
        return sum(self._per_prompt + self._per_token * len(prompt) for prompt in prompts)

    def save(self, held: list[int]) -> None:
        """A slot's content is about to be lost."""
        if not held or self._bytes([held]) > self._limit or any(common_prefix(saved, held) == len(held) for saved in self._saved):
            return
        self._saved = [saved for saved in self._saved if common_prefix(saved, held) < len(saved)]
        while self._saved and self._bytes([*self._saved, held]) > self._limit:
            self._saved.pop(0)
        self._saved.append(held)

    def restore(self, held: list[int], prompt: Sequence[int]) -> list[int]:
        """What the slot holds now: its own content, or a saved prompt that is more of use, which leaves the tier."""
        shared = common_prefix(held, prompt)
        best, keeps = None, shared / len(held) if held else -1.0
        for saved in self._saved:
            own = common_prefix(saved, prompt)
            if own >= KEEPS * len(saved) and own / len(saved) > keeps and own > shared:
                best, keeps, shared = saved, own / len(saved), own
        if best is None:
            return held
        self._saved = [saved for saved in self._saved if saved is not best]
        return best


class Slots(Memory):
    """Slots of their own cells: a prompt gets the slot whose content is most like it, if any is like it, else the one that was used longest ago,
    and all of its content is lost, unless there is a ``tier`` behind it."""

    def __init__(self, slots: int, tier: HostTier | None = None) -> None:
        self._held: list[list[int]] = [[] for _ in range(slots)]
        self._used = [-1] * slots
        self._clock = 0
        self._tier = tier

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        shared = [common_prefix(held, prompt) for held in self._held]
        slot = shared.index(max(shared))
        loses = shared[slot] < LOSES * len(self._held[slot])
        if shared[slot] * SIMILAR <= len(prompt):
            slot = max(range(len(self._used)), key=lambda number: (-self._used[number], number))
            loses = True
        if self._tier and loses:
            self._tier.save(self._held[slot])
            self._held[slot] = self._tier.restore(self._held[slot], prompt)
        reused = min(common_prefix(self._held[slot], prompt), len(prompt) - 1)
        self._held[slot] = [*prompt, *[GENERATED] * (generated - 1)]
        self._clock += 1
        self._used[slot] = self._clock
        return exactly(reused)


class AnyEarlier(Memory):
    """What is in common with any earlier prompt: more cannot be reused."""

    def __init__(self) -> None:
        self._sent: list[list[int]] = []

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        most = max((common_prefix(sent, prompt) for sent in self._sent), default=0)
        self._sent.append(list(prompt))
        return exactly(min(most, len(prompt) - 1))


def with_tier(limit_mib: int, bytes_per_token: int) -> Memory:
    """One slot with a host-memory tier of this size. Where the limit is as near as the sizes are uncertain, a range."""
    limit = limit_mib * 2**20
    least, most = (bytes_per_token * (1 + sign * ROUNDED) + CELL_BYTES for sign in (-1, 1))
    return Either(Slots(1, HostTier(limit, least, 0)), Slots(1, HostTier(limit, most, HEAD_BYTES)))
